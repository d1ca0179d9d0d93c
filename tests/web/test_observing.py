"""What observers hear of requests."""

from typing import Any

import pytest
from attrs import define, field

from abproxy.errors import ProxyError
from abproxy.events import Observer, Observers, RequestInfo
from support.client import Client
from support.proxy import InMemoryProxy, in_memory_proxy
from support.upstream import HeldUpstream, OpenUpstream


@define(eq=False)
class Notes(Observer):
    """Writes everything down."""

    told: list[tuple[str, Any]] = field(factory=list)

    def request_began(self, request: RequestInfo) -> None:
        self.told.append(("began", request.path))

    def request_ended(self, request: RequestInfo, *, gone: bool) -> None:
        self.told.append(("gone" if gone else "ended", request.path))

    def answered_with(self, error: ProxyError, model: str = "") -> None:  # noqa: ARG002
        self.told.append(("answered with", error.reason))


def _observed(proxy: InMemoryProxy, observer: Any) -> InMemoryProxy:
    proxy.site.observer = proxy.app.observer = observer
    return proxy


def _call(proxy: InMemoryProxy) -> Client:
    client = proxy.connect()
    client.embed(b'{"inputs":"a"}')
    proxy.flush()
    return client


def test_a_request_begins_and_ends() -> None:
    """In that order, when it is there and when its answer is complete."""
    notes, upstream = Notes(), HeldUpstream()
    proxy = _observed(in_memory_proxy(upstream), notes)

    _call(proxy)
    before = list(notes.told)
    upstream.answer(0, b"[[1]]")
    proxy.flush()

    assert before == [("began", b"/embed")]
    assert notes.told[1:] == [("ended", b"/embed")]


def test_a_client_that_disconnects_is_gone() -> None:
    """Its answer will never be complete."""
    notes = Notes()
    proxy = _observed(in_memory_proxy(HeldUpstream()), notes)

    _call(proxy).leave()

    assert notes.told == [("began", b"/embed"), ("gone", b"/embed")]


def test_an_answer_of_our_own_is_told_before_the_end() -> None:
    """With what it was."""
    notes = Notes()
    proxy = _observed(in_memory_proxy(OpenUpstream(), api_keys=("key",)), notes)

    _call(proxy)

    assert notes.told == [
        ("began", b"/embed"),
        ("answered with", "key"),
        ("ended", b"/embed"),
    ]


def test_a_refusal_at_the_head_is_told_like_any_answer_of_our_own() -> None:
    """A body that is too large is not even read."""
    notes = Notes()
    proxy = _observed(in_memory_proxy(OpenUpstream(), max_body_bytes=4), notes)

    _call(proxy)

    assert notes.told == [
        ("began", b"/embed"),
        ("answered with", "body_size"),
        ("ended", b"/embed"),
    ]


def test_several_observers_are_all_told() -> None:
    """Everything, and in the same order."""
    one, other = Notes(), Notes()
    proxy = in_memory_proxy(OpenUpstream(), api_keys=("key",))
    _observed(proxy, Observers([one, other]))

    _call(proxy)

    assert [what for what, _ in one.told] == ["began", "answered with", "ended"]
    assert other.told == one.told


class Broken(Observer):
    """Has a bug in all that it overrides."""

    def request_began(self, request: RequestInfo) -> None:
        raise ZeroDivisionError(request)

    def request_ended(self, request: RequestInfo, *, gone: bool) -> None:
        raise ZeroDivisionError(request, gone)


def test_a_bug_of_one_costs_neither_the_answer_nor_what_others_note(
    nothing_leaked: list[object],
) -> None:
    """It is logged each time."""
    notes = Notes()
    proxy = in_memory_proxy(OpenUpstream())
    _observed(proxy, Observers([Broken(), notes]))

    client = _call(proxy)

    [answer] = client.answers()
    assert answer.status == 200
    assert notes.told == [("began", b"/embed"), ("ended", b"/embed")]
    assert len(nothing_leaked) == 2
    nothing_leaked.clear()


def test_requests_are_served_without_an_observer() -> None:
    """Nothing is noted."""
    proxy = _observed(in_memory_proxy(OpenUpstream(), api_keys=("key",)), Observer())

    answer = proxy.ask("GET", "/info", b"", ("Authorization", "Bearer key"))
    refused = proxy.ask("GET", "/info")

    assert (answer.status, refused.status) == (200, 401)


@pytest.mark.parametrize("count", [0, 3])
def test_there_may_be_any_number_of_observers(count: int) -> None:
    """Each is told once."""
    observers = [Notes() for _ in range(count)]
    proxy = _observed(in_memory_proxy(OpenUpstream()), Observers(observers))

    _call(proxy)

    assert [len(notes.told) for notes in observers] == [2] * count


@pytest.mark.parametrize("space", ["", " "], ids=["fast", "ordinary"])
def test_a_record_of_a_request_shows_no_key(space: str) -> None:
    """Neither one in a header line nor one in the query, on either path."""
    shown: list[str] = []

    class Showing(Observer):
        def request_began(self, request: RequestInfo) -> None:
            shown.append(repr(request))

    proxy = _observed(in_memory_proxy(OpenUpstream()), Showing())
    client = proxy.connect()

    headers = ("Authorization", f"Bearer sesame{space}")
    client.embed(b'{"inputs":"a"}', headers, path="/embed?key=sesame")

    assert shown == ["RequestInfo(b'POST', b'/embed')"]
