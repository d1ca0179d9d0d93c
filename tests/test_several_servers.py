"""The whole proxy in front of several servers: limits, pages, settings."""

from typing import Any

import pytest
from attrs import evolve

from abproxy.errors import CannotConnect
from abproxy.upstream.client import Upstream
from abproxy.upstream.server_info import ServerInfo
from support.proxy import InMemoryProxy, inference_servers, wired
from support.upstream import RecordingUpstream, reply

URLS = "http://a,http://b=2"
AWAY = CannotConnect("cannot reach the inference server: refused")


def ends_of(proxy: InMemoryProxy) -> list[RecordingUpstream]:
    """Give each server of a proxy a far end of its own."""
    ends = []
    for upstream in inference_servers(proxy.service):
        ends.append(end := RecordingUpstream())
        upstream.transport = end.send
    return ends


def settle(proxy: InMemoryProxy, ends: list[RecordingUpstream]) -> None:
    """Answer all that is open, and stop."""
    proxy.inference_server.stop()
    for end in ends:
        while end.open:
            end.open[0].answer()


def test_in_front_of_one_server_nothing_is_on_the_way_to_it() -> None:
    """A call alone takes no longer because there might be several."""
    with wired(upstream_url="http://a") as proxy:
        assert isinstance(proxy.inference_server, Upstream)
        assert proxy.collector.send == proxy.inference_server.send


def test_batches_are_spread_over_the_servers() -> None:
    """And each caller has its rows."""
    with wired(upstream_url="http://a,http://b", slots=1) as proxy:
        ends = ends_of(proxy)
        clients = [proxy.call("one"), proxy.call("two")]
        proxy.clock.advance(0)

        assert [len(end.open) for end in ends] == [1, 1]
        settle(proxy, ends)
        assert [each.answers()[0].status for each in clients] == [200, 200]


def test_less_is_in_flight_while_one_is_out() -> None:
    """What the others take, and as many slots."""
    with wired(upstream_url=URLS, budget=100, max_batch_inputs=1) as proxy:
        ends = ends_of(proxy)
        budget = proxy.collector.budget
        assert (budget.servers, budget.limit.ceiling) == (2, 200)

        client = proxy.call("one")
        [first] = [end for end in ends if end.open]
        first.open[0].fail(AWAY)

        assert (budget.servers, budget.limit.ceiling) == (1, 100)
        first.open[0].done.callback(reply(200, b""))
        assert (budget.servers, budget.limit.ceiling) == (2, 200)
        settle(proxy, ends)
        assert client.answers()[0].status == 200


def test_what_one_server_says_of_itself_counts_for_all() -> None:
    """A batch has to fit into any."""
    with wired(upstream_url=URLS) as proxy:
        first, second = inference_servers(proxy.service)
        for upstream, most in ((first, 16), (second, 8)):
            info = ServerInfo(
                model="m", max_batch_inputs=most, max_inputs_in_flight=4 * most
            )
            upstream.discovery.info = info
            upstream.discovery.on_change(info)

        assert proxy.collector.caps.items == 8
        assert proxy.collector.budget.limit.ceiling == 64 + 32 - 7


@pytest.mark.parametrize("path", ["/health", "/ping"])
def test_the_proxy_is_healthy_if_one_server_is(path: str) -> None:
    """Calls are answered."""
    with wired(upstream_url=URLS) as proxy:
        first, second = ends_of(proxy)
        client = proxy.connect()
        client.ask("GET", path)

        asked, other = (first, second) if first.open else (second, first)
        asked.open[0].fail(AWAY)
        other.open[0].done.callback(reply(200, b""))

        assert client.answers("GET")[0].status == 200
        settle(proxy, [])
        for sent in asked.open:
            sent.done.cancel()


def test_settings_change_for_all_servers() -> None:
    """Without a restart."""
    with wired(upstream_url=URLS) as proxy:
        settings = evolve(
            proxy.model.settings,
            budget=40,
            max_batch_inputs=1,
            hedge_after="0.5",
            upstream_timeout_s=9.0,
            upstream_key="new",
        )

        proxy.configuration.apply(settings)

        fleet: Any = proxy.inference_server
        assert proxy.collector.budget.limit.ceiling == 80
        assert fleet.sender.hedging.after == "0.5"
        assert fleet.sender.timeout_s == 9
        assert [each.timeout_s for each in inference_servers(proxy.service)] == [9, 9]
        assert {each.credentials.key for each in inference_servers(proxy.service)} == {
            "new"
        }


def test_the_status_shows_each_server() -> None:
    """Beside what is known of all."""
    with wired(upstream_url=URLS) as proxy:
        status = proxy.page("/-/status.json")

        servers = status["upstream"]["servers"]
        assert status["upstream"]["url"] == "http://a,http://b"
        assert [(each["address"], each["weight"]) for each in servers] == [
            ("a", 1),
            ("b", 2),
        ]


def test_what_hangs_takes_nothing_from_the_others() -> None:
    """Neither their slots nor their part of what may be in flight."""
    with wired(upstream_url="http://a,http://b", budget=4, slots=1) as proxy:
        ends = ends_of(proxy)
        clients = [proxy.call("one", "1"), proxy.call("two", "2")]
        proxy.clock.advance(0)
        assert [len(end.open) for end in ends] == [1, 1]
        proxy.inference_server.members[0].standing.eject("it hangs")
        ends[1].open[0].answer()

        clients.append(proxy.call("three", "3", "4"))
        proxy.clock.advance(0)

        assert ends[1].batches[-1] == ["three", "3", "4"]
        settle(proxy, ends)
        assert [each.answers()[0].status for each in clients] == [200] * 3
