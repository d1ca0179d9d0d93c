"""A worker, as its supervisor starts it."""

import sys
from pathlib import Path

from abproxy.http.openssl import import_reactor

if __name__ == "__main__":
    # Its ports are sockets that are open already, or in a folder.
    reactor = import_reactor(())
    from abproxy.workers.worker import run

    sys.exit(run(reactor, Path(sys.argv[1]), sys.argv[2:]))
