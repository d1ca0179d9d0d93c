"""Limits and times of the HTTP server that change while the proxy runs."""

from typing import Any

import attrs
import pytest

from abproxy.service.lifetime import ProcessContext
from support.client import Client
from support.proxy import InMemoryProxy, wired

BODY = b'{"inputs":["' + b"a" * 200 + b'"]}'


def reload(here: InMemoryProxy, **changed: Any) -> None:
    """Reload, as if the operator had written that into `.env`."""
    reloading: Any = here.service.reload
    configuration = reloading.__self__
    wanted = attrs.evolve(configuration.settings, **changed)
    configuration.read = lambda: wanted
    here.service.reload()


def status_of(client: Client) -> int:
    """Return the status of the only answer."""
    [answer] = client.answers()
    return answer.status


@pytest.mark.parametrize("settings", [{}, {"fast_paths": frozenset()}])
def test_the_largest_body_changes(settings: dict[str, Any]) -> None:
    """On the fast path as on the other, and on connections that are open."""
    with wired(**settings) as here:
        client = here.connect()
        reload(here, max_body_bytes=100)

        client.embed(BODY)

        assert status_of(client) == 413


def test_a_larger_body_may_be_accepted() -> None:
    """The limit may grow as well."""
    with wired(max_body_bytes=100) as here:
        reload(here, max_body_bytes=1000)
        client = here.connect()

        client.embed(BODY)
        here.answer_all()

        assert status_of(client) == 200


def test_the_number_of_connections_changes() -> None:
    """For those that come."""
    with wired() as here:
        here.connect()
        reload(here, max_connections=1)

        client = here.call("a")

        assert status_of(client) == 429


def test_the_time_for_a_request_to_arrive_changes() -> None:
    """Also for one that is arriving."""
    with wired() as here:
        client = here.connect()
        client.send(b"POST /embed HTTP/1.1\r\n")
        reload(here, request_timeout_s=2.0)

        here.clock.pump([1] * 3)

        assert status_of(client) == 408


def test_the_time_for_idle_connections_changes() -> None:
    """A balancer that keeps its own for longer needs more."""
    with wired(client_keep_alive_s=600.0) as here:
        client = here.connect()
        here.clock.pump([1] * 100)
        early = client.transport.connected

        reload(here, client_keep_alive_s=10.0)
        here.clock.pump([1] * 2)

        assert early
        assert not client.transport.connected


def test_the_time_for_an_answer_of_the_server_changes() -> None:
    """For requests that are sent from then on."""
    with wired() as here:
        reload(here, upstream_timeout_s=3.0, call_timeout_s=4.0)
        client = here.call("a")

        here.clock.pump([1] * 60)

        assert status_of(client) == 504
        assert here.model.relay.timeout_s == 3


def test_the_times_to_drain_change() -> None:
    """They count at the end."""
    with wired() as here:
        reload(here, drain_timeout_s=7.0, drain_delay_s=3.0)

        times = here.service.drain_times()

        assert (times.whole_s, times.delay_s) == (7, 3)


def test_the_log_level_changes() -> None:
    """Once, not at each reload."""
    levels: list[str] = []
    with wired(process=ProcessContext(set_log_level=levels.append)) as here:
        reload(here, slots=3)
        reload(here, log_level="debug")

    assert levels == ["debug"]
