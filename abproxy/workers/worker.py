"""
A worker: a whole proxy that its supervisor starts, configures and ends.

Standard input and one more pipe lead to the supervisor, standard output is the
supervisor's own, for an access log there.  Whatever Python writes to standard
error the supervisor logs.
"""

import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from attrs import evolve
from twisted.internet.stdio import StandardIO
from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    LogLevelFilterPredicate,
    globalLogBeginner,
)
from zope.interface import implementer

from abproxy.errors import SettingsError
from abproxy.service.lifetime import ProcessContext
from abproxy.service.proxy import ProxyService
from abproxy.service.signals import Signals
from abproxy.settings.settings import Settings
from abproxy.telemetry.logs import json_line, set_threshold, threshold
from abproxy.tuning import tune_process, use_monotonic_clock
from abproxy.wiring import wire
from abproxy.workers.admin import ask_supervisor
from abproxy.workers.control import (
    CONTROL_IN,
    CONTROL_OUT,
    PORT,
    READY,
    ControlChannel,
    read_settings,
)
from abproxy.workers.ipc import (
    COUNTS,
    SUPERVISOR,
    TURN,
    agent_in_folder,
    listen_in_folder,
    make_send,
    remove_folder,
)
from abproxy.workers.sockets import ConnectionCounts, WorkerSocket
from abproxy.workers.turn import SharedTurn

__all__ = ["make_worker", "run"]

SUPERVISOR_TIMEOUT_S = 10.0
"""How long the supervisor may take, in seconds; it asks all workers."""


def run(reactor: Any, own_socket: Path, drained: Sequence[str] = ()) -> int:
    """
    Work until the supervisor asks for the end.

    Args:
        reactor: clock and network.
        own_socket: where the supervisor asks this worker; its name is the worker's.
        drained: addresses of servers to which nothing is to be sent.

    Returns:
        The exit code.
    """
    use_monotonic_clock(reactor)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # they are for the supervisor
    control = ControlChannel(_first_settings())
    pipes: Any = StandardIO  # mypy looks at the one for another system
    pipes(control, stdin=CONTROL_IN, stdout=CONTROL_OUT)
    enough = threshold(control.settings.log_level)
    _log_through(control.sendLine, enough)
    codes = [0]
    paths = control.settings.fast_paths
    process = ProcessContext(
        end_with=codes.append,
        drained=drained,
        tune=partial(
            tune_process,
            reactor,
            skips_log_context="poll" in paths,
        ),
        set_log_level=partial(set_threshold, enough),
    )
    try:
        service = make_worker(reactor, own_socket, control, process)
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    Signals(reactor).on(signal.SIGTERM, control.retire)
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    service.startService()
    reactor.run(installSignalHandlers=False)
    if control.supervisor_died:
        remove_folder(own_socket.parent)
    return codes[-1]


def make_worker(
    reactor: Any, own_socket: Path, control: ControlChannel, process: ProcessContext
) -> ProxyService:
    """
    Create the proxy of a worker.

    Raises:
        SettingsError: there is no way to write the access log, or to trace.
    """
    settings, folder, name = control.settings, own_socket.parent, own_socket.name
    listeners = (
        WorkerSocket(
            reactor=reactor,
            fd=PORT,
            name=name,
            counts=ConnectionCounts.at(folder / COUNTS, settings.workers),
            on_listening=lambda: control.sendLine(READY),
        ),
        listen_in_folder(reactor, folder, name),
    )
    agent = agent_in_folder(reactor, folder)
    ask = make_send(reactor, agent, SUPERVISOR, SUPERVISOR_TIMEOUT_S)
    return wire(
        settings,
        reactor,
        lambda: control.settings,
        evolve(
            process,
            listeners=listeners,
            signals=control,
            others_listen=lambda: not control.must_end,
            turn=SharedTurn.at(folder / TURN, int(name), reactor),
        ),
        lambda pages: ask_supervisor(pages, ask),
    )


def _first_settings() -> Settings:
    # Byte by byte, as what comes after it is for the reactor.
    with open(CONTROL_IN, "rb", buffering=0, closefd=False) as pipe:
        return read_settings(pipe.readline())


def _log_through(
    send: Callable[[bytes], None], enough: LogLevelFilterPredicate
) -> None:
    @implementer(ILogObserver)
    def write(event: LogEvent) -> None:
        line = json_line(event)
        if line is not None:
            send(line.rstrip().encode())

    globalLogBeginner.beginLoggingTo(
        [FilteringLogObserver(write, [enough])], redirectStandardIO=False
    )
