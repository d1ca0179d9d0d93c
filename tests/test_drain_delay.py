"""After SIGTERM the port stays open, so that load balancers notice."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from attrs import define
from twisted.logger import capturedLogs, formatEvent

from abproxy.service.proxy import IDLE_STAY_S, SAME_SIGNAL_S
from abproxy.settings.settings import Settings
from support.client import Client
from support.proxy import InMemoryProxy, wired

DELAY_S = 2.0


@define(eq=False)
class Port:
    """The port of the clients."""

    is_open: bool = True

    def stopListening(self) -> None:  # noqa: N802
        """Close it."""
        self.is_open = False


@contextmanager
def signalled(
    number: int, **settings: Any
) -> Iterator[tuple[InMemoryProxy, list[Any]]]:
    """Start a proxy and signal it; the list is filled when it has stopped."""
    with wired(**{"drain_delay_s": DELAY_S, **settings}) as here:
        stopped: list[Any] = []
        here.service.startService()
        here.clock.run()
        service: Any = here.service
        service._port = Port()
        os.kill(os.getpid(), number)
        # The reactor calls this when it is stopped.
        here.service.stopService().addCallback(stopped.append)
        here.clock.advance(0)
        yield here, stopped
        here.answer_all()
        here.clock.pump([1.0] * 40)
        assert stopped == [None]


def is_open(here: InMemoryProxy) -> bool:
    """Return whether the port of the clients accepts connections."""
    port: Any = here.service._port
    return bool(port.is_open)


def readiness(here: InMemoryProxy) -> tuple[int, str | None]:
    """Ask on a new connection whether the proxy is ready."""
    client = here.connect()
    client.ask("GET", "/-/ready")
    here.answer_all()
    [answer] = client.answers()
    return answer.status, answer.header("Connection")


def is_last(client: Client) -> bool:
    """Return whether the only answer says that its connection ends."""
    [answer] = client.answers()
    return answer.status == 200 and answer.header("Connection") == "close"


def test_the_default_gives_a_health_check_time_for_a_few_looks() -> None:
    """Every second is usual."""
    assert Settings().drain_delay_s == 2


def test_the_port_stays_open_for_the_delay_while_the_proxy_is_not_ready() -> None:
    """Who asks sees that no more should come, and then the port is closed."""
    with signalled(signal.SIGTERM) as (here, _):
        told = readiness(here)
        here.clock.advance(DELAY_S - 0.1)
        early = is_open(here)
        here.clock.advance(0.1)

        assert told == (503, "close")
        assert early
        assert not is_open(here)


def test_a_call_that_comes_within_the_delay_is_answered_and_the_last_one() -> None:
    """Its client connects elsewhere for the next."""
    with signalled(signal.SIGTERM) as (here, _):
        client = here.call("a")
        here.answer_all()

        assert is_last(client)
        assert not client.transport.connected


def test_a_connection_that_was_idle_at_the_signal_is_told_with_its_next_answer() -> (
    None
):
    """It is not closed while its client may be writing."""
    with wired(drain_delay_s=DELAY_S) as here:
        here.service.startService()
        here.clock.run()
        client = here.connect()
        os.kill(os.getpid(), signal.SIGTERM)
        here.service.stopService()
        here.clock.advance(DELAY_S / 2)

        client.embed(b'{"inputs":"a"}')
        here.answer_all()

        assert is_last(client)
        here.clock.pump([DELAY_S, IDLE_STAY_S, 0])


def test_sigint_closes_the_port_at_once() -> None:
    """No load balancer looks at a proxy in a terminal."""
    with signalled(signal.SIGINT) as (here, stopped):
        assert not is_open(here)
        assert stopped == [None]


def test_with_a_delay_of_0_sigterm_closes_the_port_at_once() -> None:
    """Where nothing routes by readiness."""
    with signalled(signal.SIGTERM, drain_delay_s=0.0) as (here, stopped):
        assert not is_open(here)
        assert stopped == [None]


def test_a_second_signal_ends_the_delay() -> None:
    """And what is still open with it."""
    with signalled(signal.SIGTERM) as (here, stopped):
        client = here.call("a")
        here.clock.advance(2 * SAME_SIGNAL_S)

        os.kill(os.getpid(), signal.SIGTERM)
        here.clock.advance(0)

        assert not client.transport.connected
        assert not is_open(here)
        assert stopped == [None]


def test_the_delay_is_part_of_the_time_to_drain() -> None:
    """A supervisor that kills after it is to wait no longer than before."""
    with signalled(signal.SIGTERM, drain_timeout_s=5.0) as (here, stopped):
        client = here.call("a")

        here.clock.pump([DELAY_S, 5.0 - DELAY_S - 0.1])
        early = client.transport.connected
        here.clock.pump([0.1, 0])

        assert early
        assert not client.transport.connected
        assert stopped == [None]


def test_half_of_the_time_to_drain_is_left_for_answers() -> None:
    """However long the delay is."""
    with signalled(signal.SIGTERM, drain_timeout_s=3.0) as (here, _):
        here.clock.advance(1.4)
        early = is_open(here)
        here.clock.advance(0.1)

        assert early
        assert not is_open(here)


def test_a_proxy_that_still_starts_has_no_port_to_keep_open() -> None:
    """Its end comes at once."""
    with wired(drain_delay_s=DELAY_S) as here:
        stopped: list[Any] = []
        here.clock.run()
        here.service._stop_on_signal(signal.SIGTERM)

        here.service.stopService().addCallback(stopped.append)
        here.clock.advance(0)

        assert stopped == [None]


def test_operators_see_that_the_proxy_is_not_ready_until_the_end() -> None:
    """Their port is not closed with that of the clients."""
    with signalled(signal.SIGTERM, operations_port="0") as (here, _):
        during = readiness(here.private)
        call = here.call("a")
        here.clock.advance(DELAY_S)
        after = readiness(here.private)
        here.answer_all()

        assert during[0] == after[0] == 503
        assert is_last(call)


def test_the_log_says_when_the_port_closes() -> None:
    """An operator who waits for the end knows what for."""
    with capturedLogs() as events, signalled(signal.SIGTERM):
        said = [formatEvent(event) for event in events]

    assert "Not ready any more; closing the port in 2 s" in said


def test_a_delay_that_is_cut_is_told_at_the_start() -> None:
    """Half of the whole time is for the calls, whatever the delay is."""
    with (
        capturedLogs() as logged,
        signalled(signal.SIGTERM, drain_delay_s=20.0, drain_timeout_s=30.0) as (
            here,
            _,
        ),
    ):
        here.clock.advance(15)

        assert not is_open(here)
    [told] = [
        text
        for event in logged
        if (text := formatEvent(event)).startswith("DRAIN_DELAY")
    ]
    assert told.endswith("the port will stay open for 15 s")
