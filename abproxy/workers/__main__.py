"""A worker, as its supervisor starts it."""

import sys
from pathlib import Path

from twisted.internet import reactor

from abproxy.workers.worker import run

if __name__ == "__main__":
    sys.exit(run(reactor, Path(sys.argv[1])))
