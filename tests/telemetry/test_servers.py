"""The figures of each of several servers, in one process and of several workers."""

from typing import Any

from abproxy.errors import CannotConnect
from abproxy.telemetry.servers import ServerMetrics, dated, merge_servers
from abproxy.workers.scrapes import add_scrapes, without_former_servers
from support.fleet import Servers
from support.upstream import reply


def figures(servers: Servers) -> dict[tuple[str, ...], float]:
    """Return each figure by its name and the values of its labels."""
    return _figures(ServerMetrics(servers=servers.fleet.servers).collect())


def _figures(families: Any) -> dict[tuple[str, ...], float]:
    return {
        (sample.name.removeprefix("abproxy_server_"), *sample.labels.values()): (
            sample.value
        )
        for family in families
        for sample in family.samples
    }


def test_each_server_has_its_state_its_work_and_its_outcomes() -> None:
    """By its address."""
    servers = Servers(2)
    servers.send_to("a")
    servers.answer("a", reply(500, b""))
    servers.send_to("a")

    seen = figures(servers)

    assert seen["state", "a", "up"] == seen["items_in_flight", "a"] == 1
    assert seen["state", "a", "out"] == seen["items_in_flight", "b"] == 0
    assert seen["requests_total", "a", "500"] == 1
    assert ("requests_total", "b", "500") not in seen
    servers.answer("a")


def test_what_goes_elsewhere_and_who_goes_out_is_counted() -> None:
    """Where it was first."""
    servers = Servers(2)
    servers.send()
    first = servers.where()
    servers.fail(first, CannotConnect("refused"))

    seen = figures(servers)

    assert seen["sent_elsewhere_total", first, "elsewhere"] == 1
    assert seen["ejections_total", first] == seen["state", first, "out"] == 1
    [said] = [each for each in servers.fleet.servers() if each["address"] == first]
    assert (said["why"], said["last_error"]) == ("refused", "refused")
    servers.answer(servers.where())


def test_shares_are_parts_of_one_from_the_first_request_on() -> None:
    """Though they are reckoned over many."""
    servers = Servers(2)
    servers.send_to("a")
    servers.answer("a")

    assert [each["share"] for each in servers.fleet.servers()] == [1, 0]


def test_a_server_that_is_gone_has_no_figures() -> None:
    """Else each address that there ever was would be there for ever."""
    servers = Servers(2)

    servers.fleet.remove(servers.members["a"])

    assert {key[1] for key in figures(servers)} == {"b"}


def test_where_there_is_one_server_there_are_no_such_figures() -> None:
    """Those of the upstream say it all."""
    assert list(ServerMetrics(servers=list).collect()) == []


def test_times_are_told_as_dates() -> None:
    """Events were noted by a clock that has none."""
    servers = Servers(1)
    [said] = dated(servers.fleet.servers(), 1000.0)

    assert (said["since"], said["last_error_at"]) == (1000.0, None)


def test_of_several_workers_the_worst_state_and_the_sums_are_told() -> None:
    """Each has seen a part of what there was."""
    one, other = Servers(1), Servers(1)
    for each in (one, other):
        each.send()
    one.answer("a")
    other.members["a"].standing.lost("it is away")

    [merged] = merge_servers([each.fleet.servers() for each in (one, other)])

    assert merged["state"] == "out"
    assert merged["why"] == "it is away"
    assert merged["requests_in_flight"] == 1
    assert merged["outcomes"] == {"200": 1}
    assert merged["share"] == 1


def test_a_scrape_of_several_workers_has_one_state_of_each_server() -> None:
    """The worst."""
    one, other = Servers(1), Servers(1)
    other.members["a"].standing.lost("it is away")
    scrapes = [
        list(ServerMetrics(servers=each.fleet.servers).collect())
        for each in (one, other)
    ]

    seen = _figures(add_scrapes(scrapes))

    states = {key[2] for key, value in seen.items() if key[0] == "state" and value}
    assert states == {"out"}


def test_what_an_ended_worker_has_counted_of_a_server_goes_with_the_server() -> None:
    """Its counts are kept, but not for addresses that no worker has any more."""
    ended, running = Servers(2), Servers(1)
    for letter in "ab":
        ended.send_to(letter)
        ended.answer(letter)
    kept = [
        family
        for family in ServerMetrics(servers=ended.fleet.servers).collect()
        if family.type == "counter"
    ]
    now = list(ServerMetrics(servers=running.fleet.servers).collect())

    seen = _figures(without_former_servers(add_scrapes([kept, now])))

    assert seen["requests_total", "a", "200"] == 1
    assert {key[1] for key in seen} == {"a"}
