"""The proxy as a service: what it tells twistd, its log, and signals."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from attrs import define, evolve, field
from twisted.application.service import Application, MultiService
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import (
    ILogObserver,
    LogEvent,
    capturedLogs,
    formatEvent,
)

from abproxy import __version__
from abproxy.service.lifetime import ProcessContext
from abproxy.service.proxy import IDLE_STAY_S, LAST_S, REPORT_EVERY_S, SAME_SIGNAL_S
from abproxy.telemetry.advice import LimitsInForce, Recommendation
from abproxy.telemetry.diagnosis import diagnose
from abproxy.telemetry.history import Totals
from abproxy.telemetry.lines import flush_all
from support.proxy import InMemoryProxy, wired

SOME_CALLS = diagnose(
    Totals(at=3600.0, calls=5, parts=5),
    LimitsInForce(batch_items=32, batch_bytes=1_900_000),
)


def nobody(_event: LogEvent) -> None:
    """Observe nothing."""


@contextmanager
def started(**settings: Any) -> Iterator[InMemoryProxy]:
    """Start a proxy, and stop it again."""
    with wired(**settings) as here:
        stopped: list[None] = []
        here.service.startService()
        yield here
        here.answer_all()
        here.service.stopService().addCallback(stopped.append)
        here.clock.pump([0, IDLE_STAY_S, 0])
        assert stopped == [None]


def _said(events: list[LogEvent]) -> list[str]:
    return [formatEvent(event) for event in events]


def _reports(events: list[LogEvent]) -> list[str]:
    return [line for line in _said(events) if line.startswith("In the last hour: ")]


def test_twistd_is_told_who_writes_the_log() -> None:
    """Its application has a place for that."""
    with wired(process=ProcessContext(log_observer=nobody)) as here:
        application: Any = Application("abproxy")

        here.service.setServiceParent(application)

        assert ILogObserver(application) is nobody
        assert here.service.parent.name == "abproxy"


def test_without_an_observer_of_ours_twistd_logs_in_its_own_way() -> None:
    """It has one by default."""
    with wired() as here:
        application: Any = Application("abproxy")

        here.service.setServiceParent(application)

        assert application.getComponent(ILogObserver) is None


def test_a_parent_that_is_no_application_is_told_nothing() -> None:
    """The proxy may be a part of something larger."""
    with wired(process=ProcessContext(log_observer=nobody)) as here:
        parent = MultiService()

        here.service.setServiceParent(parent)

        assert list(parent) == [here.service]


def test_the_proxy_makes_itself_at_home_when_the_work_begins() -> None:
    """By then all is there that will stay."""
    settled: list[bool] = []
    process = ProcessContext(tune=lambda: settled.append(True))
    with wired(process=process) as here:
        here.service.startService()
        before = list(settled)

        here.clock.run()
        here.service.stopService()
        here.clock.advance(0)

    assert (before, settled) == ([], [True])


def test_once_an_hour_the_log_says_whether_batching_helps() -> None:
    """In the words of the page."""
    with started() as here:
        here.service.report = lambda: str(SOME_CALLS)

        with capturedLogs() as events:
            here.clock.advance(REPORT_EVERY_S - 1)
            early = _reports(events)
            here.clock.advance(1)

        assert early == []
        told = "Too few calls to tell: 5 were sent to the server lately."
        assert _reports(events) == [f"In the last hour: {told}"]


def test_the_report_names_what_would_help() -> None:
    """And goes on hour by hour."""
    verdict = evolve(
        SOME_CALLS, text="Slow.", advice=Recommendation("SLOTS", "so it is")
    )
    with started() as here:
        here.service.report = lambda: str(verdict)

        with capturedLogs() as events:
            here.clock.pump([REPORT_EVERY_S] * 2)

        told = "In the last hour: Slow. What would help is SLOTS: so it is."
        assert _reports(events) == [told, told]


def test_an_hour_without_calls_is_not_worth_a_line() -> None:
    """A proxy at rest is quiet."""
    with started() as here, capturedLogs() as events:
        here.clock.advance(REPORT_EVERY_S)

        assert _reports(events) == []


def test_a_report_that_fails_is_not_the_last_one(nothing_leaked: list[object]) -> None:
    """Judging must not be the end of judging."""
    with started() as here:
        here.service.report = lambda: str(1 / 0)
        here.clock.advance(REPORT_EVERY_S)
        here.service.report = lambda: str(SOME_CALLS)

        with capturedLogs() as events:
            here.clock.advance(REPORT_EVERY_S)

        assert len(_reports(events)) == 1
        assert len(nothing_leaked) == 1
        nothing_leaked.clear()


def test_after_the_end_there_are_no_reports() -> None:
    """No timer is left behind."""
    with started() as here:
        pass

    assert here.clock.getDelayedCalls() == []


def test_a_service_that_was_never_started_can_be_stopped() -> None:
    """As twistd does if another one fails to start."""
    with wired() as here:
        stopped: list[None] = []

        here.service.stopService().addCallback(stopped.append)
        here.clock.advance(0)

        assert stopped == [None]


@pytest.fixture
def hung_up(tmp_path: Path) -> Iterator[tuple[InMemoryProxy, Path]]:
    """Start a proxy with an access log that hears signals."""
    file = tmp_path / "access.log"
    with started(access_log=str(file)) as here:
        here.clock.run()
        yield here, file


def test_sighup_opens_the_access_log_anew(hung_up: tuple[InMemoryProxy, Path]) -> None:
    """After it was moved away, lines go into a new file of its name."""
    here, file = hung_up
    here.ask("GET", "/old")
    file.rename(file.with_suffix(".1"))

    os.kill(os.getpid(), signal.SIGHUP)
    here.ask("GET", "/new")
    flush_all()

    assert "/old" not in file.read_text()
    assert "/new" in file.read_text()


def test_sighup_also_reads_the_settings_again(
    hung_up: tuple[InMemoryProxy, Path],
) -> None:
    """One signal for all that can change."""
    del hung_up
    with capturedLogs() as events:
        os.kill(os.getpid(), signal.SIGHUP)

    assert _said(events) == ["Settings read again: nothing has changed"]


def test_the_log_begins_with_the_version() -> None:
    """Whoever reads it later knows what ran."""
    with wired() as here, capturedLogs() as events:
        here.service.startService()
        said = _said(events)
        here.service.stopService()
        here.clock.advance(0)

    assert said[0] == f"abproxy {__version__}"


def test_the_log_says_where_calls_and_operators_are_welcome() -> None:
    """And where the inference server is."""
    with capturedLogs() as events, started(operations_port="0"):
        said = _said(events)

    assert "Operations are on http://0.0.0.0:1234/-/" in said
    assert (
        "abproxy answers on http://0.0.0.0:1234; "
        "inference server: http://127.0.0.1:8080"
    ) in said


def test_idle_connections_of_clients_stay_for_a_moment() -> None:
    """A client that has just read an answer may be sending its next call."""
    with wired() as here:
        stopped: list[None] = []
        here.service.startService()
        idle = here.connect()

        here.service.stopService().addCallback(stopped.append)
        here.clock.pump([0, IDLE_STAY_S - 0.1])
        early = list(stopped), idle.transport.connected
        here.clock.pump([0.1, 0])

        assert early == ([], True)
        assert not idle.transport.connected
        assert stopped == [None]


def test_without_connections_the_end_comes_at_once() -> None:
    """Nobody is waited for who is not there."""
    with wired() as here:
        stopped: list[None] = []
        here.service.startService()

        here.service.stopService().addCallback(stopped.append)
        here.clock.advance(0)

        assert stopped == [None]


def test_idle_connections_stay_no_longer_than_the_drain_may_take() -> None:
    """The operator's limit is one for the whole."""
    with wired(drain_timeout_s=0.2) as here, capturedLogs() as events:
        stopped: list[None] = []
        here.service.startService()
        idle = here.connect()

        here.service.stopService().addCallback(stopped.append)
        here.clock.pump([0, 0.2, 0])

        assert not idle.transport.connected
        assert stopped == [None]
        assert not any("cut off" in line for line in _said(events))


def test_whoever_still_reads_a_page_at_the_end_has_a_moment() -> None:
    """When all clients are answered, nobody waits long for an operator."""
    with wired(operations_port="0", drain_timeout_s=0.2) as here:
        stopped: list[None] = []
        private: Any = here.service.private
        here.service.startService()
        operator = here.connect(private.site)
        operator.ask("GET", "/health")

        here.service.stopService().addCallback(stopped.append)
        here.clock.advance(0)
        here.clock.advance(LAST_S - 0.1)
        early = list(stopped), operator.transport.connected
        here.clock.advance(0.1)

        assert early == ([], True)
        assert stopped == [None]
        assert not operator.transport.connected
        here.clock.advance(10)


@define(eq=False)
class Deaf:
    """A door that cannot be opened."""

    socket: Any

    def listen(self, _factory: object) -> Deferred[Any]:
        """Fail."""
        return fail(OSError("no door"))


@pytest.mark.parametrize("port", ["public", "private"])
def test_a_door_that_cannot_be_opened_ends_the_proxy(port: str) -> None:
    """It never runs deaf, and the log says why."""
    codes: list[int] = []
    process = ProcessContext(end_with=codes.append)
    with wired(process=process, operations_port="0") as here:
        service = here.service
        own: Any = getattr(service, port)
        setattr(service, port, evolve(own, listener=Deaf(own.listener.socket)))

        with capturedLogs() as events:
            service.startService()
        here.clock.run()

        assert "Cannot start: no door" in _said(events)
        assert here.clock.hasStopped
        assert codes == [1]
        service.stopService()
        here.clock.advance(0)


@define(eq=False)
class Model:
    """A model that takes its time to start."""

    model: str = "slow"
    started: Deferred[None] = field(factory=Deferred)
    is_stopped: bool = False

    def start(self) -> Deferred[None]:
        """Begin to start."""
        return self.started

    def stop(self) -> Deferred[None]:
        """Stop at once."""
        self.is_stopped = True
        return succeed(None)


def test_the_door_opens_when_the_model_is_there() -> None:
    """And the model goes when the door is closed."""
    with wired() as here:
        model = Model()
        here.service.model = model
        here.service.startService()

        early = list(here.clock.adoptedPorts)
        model.started.callback(None)
        opened = list(here.clock.adoptedPorts)
        here.service.stopService()
        here.clock.advance(0)

        assert (len(early), len(opened)) == (0, 1)
        assert model.is_stopped


def test_a_proxy_that_is_stopped_while_it_starts_says_nothing_of_it() -> None:
    """Whoever stops it knows."""
    with wired() as here:
        model = Model()
        here.service.model = model
        here.service.startService()

        with capturedLogs() as events:
            here.service.stopService()
            here.clock.advance(0)

        assert _said(events) == ["Draining 0 calls"]
        assert model.is_stopped


@pytest.mark.parametrize("urgent", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_cuts_off_clients_and_operators(urgent: int) -> None:
    """Somebody is in a hurry."""
    with wired(operations_port="0") as here:
        stopped: list[None] = []
        private: Any = here.service.private
        here.service.startService()
        here.clock.run()
        client, operator = here.call("a"), here.connect(private.site)
        operator.ask("GET", "/health")
        os.kill(os.getpid(), urgent)
        here.clock.advance(0)
        here.service.stopService().addCallback(stopped.append)
        here.clock.advance(2 * SAME_SIGNAL_S)

        os.kill(os.getpid(), urgent)
        here.clock.advance(0)

        assert not client.transport.connected
        assert not operator.transport.connected
        assert stopped == [None]
        here.clock.advance(10)


def test_after_a_second_signal_nobody_is_accepted_who_still_waits() -> None:
    """The end would wait for the answer, though somebody is in a hurry."""
    with wired() as here:
        here.service.startService()
        here.service.site.abort()

        assert here.service.site.buildProtocol(None) is None

        here.service.stopService()
        here.clock.advance(0)
