"""
The life of a worker: a whole proxy, with its foreman's sockets and orders.

Standard input and one more pipe lead to the foreman, standard output is the
foreman's own, for an access log there.  Whatever Python writes to standard
error the foreman hears.
"""

import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from twisted.internet.stdio import StandardIO
from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
)
from zope.interface import implementer

from abproxy.settings import Settings, SettingsError
from abproxy.settling import settle
from abproxy.signals import Signals
from abproxy.telemetry.logs import json_line
from abproxy.web.observing import Unwatched
from abproxy.wiring import wire
from abproxy.workers.adopted import AdoptedSocket
from abproxy.workers.counts import Counts
from abproxy.workers.orders import IN, OUT, PUBLIC, READY, ControlChannel, read_settings
from abproxy.workers.passing import pass_on
from abproxy.workers.private import (
    COUNTS,
    FOREMAN,
    abandon,
    agent_in,
    listen_in,
    make_way,
)

__all__ = ["make_worker", "run"]

FOREMAN_TIMEOUT_S = 10.0
"""How long the foreman may take, in seconds; it asks all workers."""


def run(reactor: Any, private: Path) -> int:
    """
    Work until the foreman says that it is enough.

    Args:
        reactor: clock and network.
        private: the socket on which the foreman asks.

    Returns:
        The exit code.
    """
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # they are for the foreman
    orders = ControlChannel(_first_settings())
    pipes: Any = StandardIO  # mypy looks at the one for another system
    pipes(orders, stdin=IN, stdout=OUT)
    _log_through(orders.sendLine, orders.settings.log_level)
    try:
        service = make_worker(reactor, private, orders)
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    codes = [0]
    service.end_with = codes.append
    service.settle = partial(settle, orders.settings, reactor)
    Signals(reactor).on(signal.SIGTERM, orders.retire)
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    service.startService()
    reactor.run(installSignalHandlers=False)
    if orders.is_alone:
        abandon(private.parent)
    return codes[-1]


def make_worker(reactor: Any, private: Path, orders: ControlChannel) -> Any:
    """
    Put the proxy together, for the part of a worker.

    Raises:
        SettingsError: there is no way to write the access log, or to trace.
    """
    settings = orders.settings
    listeners = (
        AdoptedSocket(
            reactor=reactor,
            number=PUBLIC,
            name=private.name,
            counts=Counts.at(private.with_name(COUNTS), settings.workers),
            opened=lambda: orders.sendLine(READY),
        ),
        listen_in(reactor, private.parent, private.name),
    )
    service: Any = wire(settings, reactor, lambda: orders.settings, listeners)
    service.signals = orders
    public, asked = service.gate.site, service.private_gate.site
    # Only the foreman comes in there: no client, and nothing for an access log.
    asked.observer = Unwatched()
    agent = agent_in(reactor, private.parent)
    to_foreman = make_way(reactor, agent, FOREMAN, FOREMAN_TIMEOUT_S)
    own = asked.operations
    shown = public.operations if settings.operations_port else own
    public.operations = pass_on(shown, own, to_foreman.send)
    return service


def _first_settings() -> Settings:
    # Byte by byte, as what comes after it is for the reactor.
    with open(IN, "rb", buffering=0, closefd=False) as pipe:
        return read_settings(pipe.readline())


def _log_through(send: Callable[[bytes], None], level: str) -> None:
    @implementer(ILogObserver)
    def write(event: LogEvent) -> None:
        line = json_line(event)
        if line is not None:
            send(line.rstrip().encode())

    enough = LogLevelFilterPredicate(LogLevel.lookupByName(level))
    globalLogBeginner.beginLoggingTo(
        [FilteringLogObserver(write, [enough])], redirectStandardIO=False
    )
