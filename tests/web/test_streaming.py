"""A request body that is sent upstream while it still arrives."""

from typing import Any

import pytest
from attrs import define, field
from twisted.web.iweb import UNKNOWN_LENGTH

from abproxy.web.streaming import MAX_BUFFERED, BodyStream


@define(eq=False)
class Source:
    """A client's connection that notes when it is paused."""

    is_paused: bool = False
    events: list[str] = field(factory=list)

    def pauseProducing(self) -> None:
        self.is_paused = True
        self.events.append("pause")

    def resumeProducing(self) -> None:
        self.is_paused = False
        self.events.append("resume")


@define(eq=False)
class Upstream:
    """Takes in what is sent, and may have enough of it at any time."""

    body: BodyStream
    received: list[bytes] = field(factory=list)
    sent: list[Any] = field(factory=list)
    fills_up: bool = False

    def start(self) -> None:
        self.body.startProducing(self).addBoth(self.sent.append)  # type: ignore[arg-type]

    def write(self, data: bytes) -> None:
        self.received.append(data)
        if self.fills_up:
            self.body.pauseProducing()


@pytest.fixture
def source() -> Source:
    """Make a connection."""
    return Source()


def test_what_arrives_later_is_sent_at_once(source: Source) -> None:
    """A large upload is never held in memory."""
    body = BodyStream(6, source)
    upstream = Upstream(body)
    upstream.start()

    body.write(b"abc")
    body.write(b"def")

    assert upstream.received == [b"abc", b"def"]
    assert upstream.sent == []


def test_what_arrived_before_is_sent_first(source: Source) -> None:
    """While the connection to the upstream was being opened."""
    body = BodyStream(6, source)
    body.write(b"abc")
    upstream = Upstream(body)

    upstream.start()
    body.write(b"def")

    assert upstream.received == [b"abc", b"def"]


def test_the_end_after_the_start_is_told(source: Source) -> None:
    """Then the upstream knows that it has everything."""
    body = BodyStream(3, source)
    upstream = Upstream(body)
    upstream.start()

    body.write(b"abc")
    body.complete()

    assert upstream.sent == [None]
    assert body.is_complete


def test_the_end_before_the_start_is_told(source: Source) -> None:
    """A small body is here before the upstream is."""
    body = BodyStream(3, source)
    body.write(b"abc")
    body.complete()
    upstream = Upstream(body)

    upstream.start()

    assert upstream.received == [b"abc"]
    assert upstream.sent == [None]


def test_a_body_that_is_all_here_needs_no_source() -> None:
    """It was read to see whether it was a call."""
    body = BodyStream.of(b"x" * (MAX_BUFFERED + 1))
    upstream = Upstream(body, fills_up=True)

    upstream.start()
    body.resumeProducing()

    assert b"".join(upstream.received) == b"x" * (MAX_BUFFERED + 1)
    assert upstream.sent == [None]


@pytest.mark.parametrize(("announced", "length"), [(7, 7), (0, 0)])
def test_the_announced_length_is_passed_on(
    source: Source, announced: int, length: int
) -> None:
    """As the client has framed it."""
    assert BodyStream(announced, source).length == length


def test_a_chunked_body_has_no_length(source: Source) -> None:
    """And is sent on in chunks."""
    assert BodyStream(None, source).length is UNKNOWN_LENGTH


def test_the_client_waits_for_an_upstream_that_is_not_ready(source: Source) -> None:
    """As much as a buffer is taken in, and no more."""
    body = BodyStream(None, source)

    body.write(b"x" * MAX_BUFFERED)
    before = source.is_paused
    body.write(b"x")

    assert (before, source.is_paused) == (False, True)


def test_the_client_goes_on_when_the_upstream_is_ready(source: Source) -> None:
    """As soon as the body may be sent on."""
    body = BodyStream(None, source)
    body.write(b"x" * (MAX_BUFFERED + 1))

    Upstream(body).start()

    assert not source.is_paused


def test_an_upstream_that_fills_up_at_the_start_is_waited_for(source: Source) -> None:
    """What was buffered may already be too much for it."""
    body = BodyStream(None, source)
    body.write(b"x" * MAX_BUFFERED)
    body.write(b"x")

    Upstream(body, fills_up=True).start()

    assert source.is_paused


def test_a_slow_upstream_slows_the_client(source: Source) -> None:
    """And lets it go on."""
    body = BodyStream(None, source)
    Upstream(body).start()

    body.pauseProducing()
    while_slow = source.is_paused
    body.resumeProducing()

    assert (while_slow, source.is_paused) == (True, False)


@pytest.mark.parametrize("comes_late", [True, False])
def test_the_end_is_not_told_to_an_upstream_that_wants_a_pause(
    source: Source,
    comes_late: bool,  # noqa: FBT001
) -> None:
    """Its connection would wake up the next request in the place of this one."""
    body = BodyStream(None, source)
    upstream = Upstream(body, fills_up=True)
    if comes_late:
        upstream.start()
    body.write(b"x" * (MAX_BUFFERED + 1))
    body.complete()
    if not comes_late:
        upstream.start()

    while_full = list(upstream.sent)
    body.resumeProducing()

    assert (while_full, upstream.sent) == ([], [None])


def test_a_client_that_was_paused_from_elsewhere_stays_paused(source: Source) -> None:
    """It does not read its answers, and is not to send more requests."""
    body = BodyStream(0, source)
    Upstream(body).start()
    body.complete()

    source.pauseProducing()
    body.resumeProducing()
    body.close()

    assert source.is_paused


def test_what_the_upstream_does_not_want_is_discarded(source: Source) -> None:
    """The upstream has answered already, but the client still sends."""
    body = BodyStream(None, source)
    upstream = Upstream(body)
    upstream.start()

    body.stopProducing()
    body.write(b"x" * (MAX_BUFFERED + 1))
    body.complete()

    assert upstream.received == []
    assert upstream.sent == []
    assert not source.is_paused


def test_a_paused_client_goes_on_when_the_upstream_wants_no_more(
    source: Source,
) -> None:
    """It would wait for ever to send the rest."""
    body = BodyStream(None, source)
    body.write(b"x" * (MAX_BUFFERED + 1))

    body.stopProducing()

    assert not source.is_paused


def test_the_end_is_no_news_to_who_has_given_up(source: Source) -> None:
    """The request upstream was cancelled while the client went on sending."""
    body = BodyStream(None, source)
    sent = body.startProducing(Upstream(body))  # type: ignore[arg-type]
    sent.addErrback(lambda _: None)

    sent.cancel()
    body.complete()

    assert body.is_complete


def test_it_is_a_file_to_twisted(source: Source) -> None:
    """Which asks for a position and wants to go back to the start."""
    body = BodyStream(3, source)

    assert body.tell() == 0
    assert body.seek(0) == 0
    assert "abc" not in repr(body)
