"""The page by which operators take servers out of use, and back."""

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.logger import capturedLogs, formatEvent

from abproxy.errors import CannotConnect
from support.client import Answer
from support.proxy import InMemoryProxy, inference_servers, wired
from support.upstream import RecordingUpstream

KEY = "for operators"
TWO = "http://a:80,http://b:80/tei"
PAGE = "/-/upstreams"
DRAIN, RESUME = f"{PAGE}/a:80/drain", f"{PAGE}/a:80/resume"


class Fleet:
    """A proxy in front of several servers, each with a far end of its own."""

    def __init__(self, proxy: InMemoryProxy) -> None:
        self.proxy = proxy
        self.ends: list[RecordingUpstream] = []
        for upstream in inference_servers(proxy.service):
            self.ends.append(end := RecordingUpstream())
            upstream.transport = end.send

    @property
    def open(self) -> list[int]:
        """How many requests each server has not answered."""
        return [len(end.open) for end in self.ends]

    def ask(self, path: str = PAGE, method: str = "POST", key: str = KEY) -> Answer:
        """Ask for a page as an operator."""
        shown = ("Authorization", f"Bearer {key}")
        return self.proxy.ask(method, path, b"", shown)

    def states(self) -> dict[str, str]:
        """Return the state of each server, by its address."""
        listed = self.ask(method="GET").json["upstreams"]
        return {each["address"]: each["state"] for each in listed}

    def settle(self) -> None:
        """Answer all that is open, and stop."""
        self.proxy.inference_server.stop()
        for end in self.ends:
            while end.open:
                end.open[0].answer()


def fleet(**settings: Any) -> Iterator[Fleet]:
    """Wire a proxy in front of two servers."""
    chosen = {"upstream_url": TWO, "admin_keys": (KEY,), **settings}
    with wired(**chosen) as proxy:
        found = Fleet(proxy)
        yield found
        found.settle()


@pytest.fixture
def two() -> Iterator[Fleet]:
    """Wire a proxy in front of two servers."""
    yield from fleet()


@pytest.fixture
def without() -> Iterator[Fleet]:
    """Wire one without a key for operators."""
    yield from fleet(admin_keys=())


@pytest.mark.parametrize(("method", "path"), [("GET", PAGE), ("POST", DRAIN)])
def test_without_a_key_of_operators_there_is_no_such_page(
    without: Fleet, method: str, path: str
) -> None:
    """Nobody could drain anything by mistake, or by guessing."""
    answer = without.ask(path, method)

    assert answer.status == 404
    assert "ADMIN_KEY is not set" in answer.json["error"]


@pytest.mark.parametrize("key", ["", "client", KEY + "x"])
def test_only_a_key_of_operators_will_do(key: str) -> None:
    """Not one of a client."""
    for two in fleet(api_keys=("client",)):
        for method, path in (("GET", PAGE), ("POST", DRAIN), ("PUT", PAGE)):
            assert two.ask(path, method, key).status == 401
        assert two.states() == {"a:80": "up", "b:80/tei": "up"}


def test_the_servers_are_listed(two: Fleet) -> None:
    """Each with what it has in flight."""
    two.proxy.call("one")

    listed = two.ask(method="GET").json["upstreams"]

    assert [each["address"] for each in listed] == ["a:80", "b:80/tei"]
    assert sorted(each["requests_in_flight"] for each in listed) == [0, 1]
    assert sorted(each["inputs_in_flight"] for each in listed) == [0, 1]


def test_one_that_is_drained_gets_nothing_and_answers_what_it_has(two: Fleet) -> None:
    """The answer says how much that is, and so does the page afterwards."""
    clients = [two.proxy.call(text) for text in ("one", "two")]
    assert two.open == [1, 1]

    drained = two.ask(DRAIN).json
    clients += [two.proxy.call(text) for text in ("three", "four")]
    two.ends[1].open[0].answer()
    two.proxy.clock.advance(0)

    assert drained["is_drained"]
    assert drained["requests_in_flight"] == drained["inputs_in_flight"] == 1
    assert two.open[0] == 1
    two.ends[0].open[0].answer()
    two.proxy.clock.advance(0)
    assert two.ask(f"{PAGE}/a:80", "GET").json["requests_in_flight"] == 0
    assert two.open[0] == 0
    two.settle()
    assert [each.answers()[0].status for each in clients] == [200] * 4


def test_to_read_what_is_to_be_posted_is_told_so(two: Fleet) -> None:
    """Whoever forgets the method learns of it, and nothing is drained."""
    answer = two.ask(DRAIN, "GET")

    assert answer.status == 405
    assert "POST" in answer.json["error"]
    assert two.states() == {"a:80": "up", "b:80/tei": "up"}


def test_one_that_is_resumed_gets_work_again(two: Fleet) -> None:
    """As if nothing had been."""
    two.ask(DRAIN)

    assert not two.ask(RESUME).json["is_drained"]

    for text in ("one", "two"):
        two.proxy.call(text)
    assert two.open == [1, 1]


def test_to_drain_twice_is_no_error(two: Fleet) -> None:
    """A script may ask again and again until nothing is in flight."""
    assert [two.ask(DRAIN).status for _ in range(2)] == [200, 200]


def test_a_server_below_a_path_has_it_in_its_address(two: Fleet) -> None:
    """As it is written in the settings, or with the slash encoded."""
    assert two.ask(f"{PAGE}/b:80/tei/drain").status == 200
    assert two.ask(f"{PAGE}/b:80%2Ftei/resume").status == 200


def test_the_last_that_takes_calls_is_not_drained(two: Fleet) -> None:
    """Calls would have nowhere to go."""
    two.ask(DRAIN)

    answer = two.ask(f"{PAGE}/b:80/tei/drain")

    assert answer.status == 409
    assert answer.json["error"] == "no other server takes calls at the moment"
    assert two.states() == {"a:80": "drained", "b:80/tei": "up"}


def test_one_that_is_out_counts_for_nothing(two: Fleet) -> None:
    """A script that upgrades one after the other has to wait until it is back."""
    two.proxy.call("one")
    [away] = [end for end in two.ends if end.open]
    away.open[0].fail(CannotConnect("refused"))
    there = "b:80/tei" if away is two.ends[0] else "a:80"

    assert two.ask(f"{PAGE}/{there}/drain").status == 409


def test_the_only_server_is_not_drained() -> None:
    """It is listed all the same."""
    for one in fleet(upstream_url="http://a:80"):
        assert one.states() == {"a:80": "unknown"}
        assert one.ask(DRAIN).status == 409


@pytest.mark.parametrize(
    ("method", "path"), [("POST", f"{PAGE}/c:80/drain"), ("GET", f"{PAGE}/c:80")]
)
def test_a_server_that_is_not_known_is_told_with_those_that_are(
    two: Fleet, method: str, path: str
) -> None:
    """Whoever has mistyped sees what is right."""
    answer = two.ask(path, method)

    assert answer.status == 404
    expected = "there is no server 'c:80'; there are: a:80, b:80/tei"
    assert answer.json["error"] == expected


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", PAGE), ("POST", f"{PAGE}/a:80"), ("PUT", DRAIN), ("DELETE", DRAIN)],
)
def test_what_cannot_be_done_says_what_can(two: Fleet, method: str, path: str) -> None:
    """And does nothing."""
    answer = two.ask(path, method)

    assert answer.status == 405
    assert ("Allow", "GET, POST") in answer.headers
    assert set(two.states().values()) == {"up"}


def test_with_a_port_of_operators_the_page_is_only_there() -> None:
    """As the others that are not for clients."""
    for two in fleet(operations_port="0"):
        shown = ("Authorization", f"Bearer {KEY}")
        private = two.proxy.private.ask("POST", DRAIN, b"", shown)

        assert two.ask(DRAIN).status == 404
        assert private.status == 200


def test_who_comes_back_under_an_address_that_is_drained_gets_nothing(
    two: Fleet,
) -> None:
    """Also if a name was looked up anew meanwhile."""
    two.ask(DRAIN)
    group = two.proxy.inference_server
    [gone] = [each for each in group.members if each.address == "a:80"]
    group.remove(gone)

    again = group.add(gone.upstream)

    assert again.is_drained
    assert two.states()["a:80"] == "drained"


def test_an_address_may_be_resumed_that_is_not_there(two: Fleet) -> None:
    """Else it could never be used again."""
    two.ask(DRAIN)
    group = two.proxy.inference_server
    [gone] = [each for each in group.members if each.address == "a:80"]
    group.remove(gone)

    assert two.ask(RESUME).status == 404

    assert not group.add(gone.upstream).is_drained


def test_the_log_says_what_the_operator_wants(two: Fleet) -> None:
    """Once, and with what is still to be answered."""
    with capturedLogs() as events:
        two.ask(DRAIN)
        two.ask(DRAIN)
        two.ask(RESUME)

    assert [formatEvent(event) for event in events] == [
        f"The inference server http://a:80 gets {what}: the operator wants it so; "
        "in flight: 0"
        for what in ("no new requests", "requests again")
    ]
