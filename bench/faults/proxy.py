"""
Runs abproxy with names that a name server of its own tells, as a file says.

    python -m bench.faults.proxy FILE [options of abproxy]

The file has the addresses of each name, as JSON, and is read again and again.
"""

import json
import sys
from pathlib import Path
from typing import Any

from twisted.internet.task import LoopingCall
from twisted.scripts.twistd import run

from bench.breakable.names import Names, NameServer

OFTEN_S = 0.05


def main(file: Path) -> None:
    """Serve until interrupted."""
    from twisted.internet import reactor as installed  # noqa: PLC0415  not to import

    reactor: Any = installed
    server = NameServer(reactor)
    server.start()
    reactor.installNameResolver(Names(reactor, server.port))
    read = LoopingCall(
        lambda: server.addresses.update(json.loads(file.read_text(encoding="ascii")))
    )
    reactor.callWhenRunning(read.start, OFTEN_S)
    run()


if __name__ == "__main__":
    names = Path(sys.argv[1])
    sys.argv = ["twistd", "--nodaemon", "--pidfile=", "abproxy", *sys.argv[2:]]
    main(names)
