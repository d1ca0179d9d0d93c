"""Answers say which version of a model has computed them."""

from collections.abc import Sequence

import pytest
from msgspec.structs import replace
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from abproxy.http.messages import Response, UpstreamRequest
from abproxy.upstream.identity import Identity, Source
from abproxy.upstream.joining import KNOWN_WITHIN_S, Naming, sha_line
from support.upstream import RecordingUpstream, reply

REQUEST = UpstreamRequest(path=b"/embed", headers=(), body=b"{}")
TYPE = (b"Content-Type", b"application/json")
NEW = Identity(models=("a",), sha="new")


def ask(clock: Clock | None = None) -> tuple[Deferred[Response], RecordingUpstream]:
    """Ask a server for something."""
    upstream = RecordingUpstream()
    naming = Naming(compute=upstream.send, clock=clock or Clock())
    return naming.send(REQUEST), upstream


def answer_of(
    source: Source | None, *lines: tuple[bytes, bytes], status: int = 200
) -> Response:
    """Return an answer of a source."""
    return replace(reply(status, b"[[1]]", *lines), source=source)


def named(answer: Response) -> Sequence[tuple[bytes, bytes]]:
    """Return the lines of an answer once it is named."""
    asked, upstream = ask()
    upstream.sent[0].done.callback(answer)
    result = asked.result
    assert isinstance(result, Response)
    assert (result.body, result.source) == (answer.body, answer.source)
    return result.headers


def test_the_version_is_one_more_line() -> None:
    """Behind all others."""
    lines = named(answer_of(Source(identity=NEW), TYPE))

    assert lines == (TYPE, (b"X-Model-Sha", b"new"))


def test_it_takes_the_place_of_what_the_server_says() -> None:
    """That may be a proxy of this kind itself."""
    line = (b"x-model-sha", b"other")

    assert named(answer_of(Source(identity=NEW), line)) == ((b"X-Model-Sha", b"new"),)
    assert named(answer_of(Source(identity=Identity()), line)) == (line,)


@pytest.mark.parametrize(
    "source",
    [
        None,
        Source(identity=Identity(models=("a",))),
        Source(is_over=True),
        Source(identity=NEW, later=Identity(models=("b",)), is_over=True),
    ],
)
def test_what_is_not_known_is_not_said(source: Source | None) -> None:
    """Least of all what was true of another server."""
    assert named(answer_of(source, TYPE)) == (TYPE,)


def test_a_refusal_is_of_no_model() -> None:
    """It is passed on as it is."""
    assert named(answer_of(Source(identity=NEW), TYPE, status=422)) == (TYPE,)


def test_an_answer_waits_until_it_is_known_what_has_given_it() -> None:
    """Who wants to know it has asked for that."""
    source = Source()
    asked, upstream = ask()

    upstream.sent[0].done.callback(answer_of(source))
    assert not asked.called or isinstance(asked.result, Deferred)
    source.settle(NEW)

    assert isinstance(asked.result, Response)
    assert asked.result.headers == ((b"X-Model-Sha", b"new"),)


def test_an_answer_does_not_wait_for_ever() -> None:
    """Better without the line than none."""
    clock = Clock()
    asked, upstream = ask(clock)
    upstream.sent[0].done.callback(answer_of(Source()))

    clock.advance(KNOWN_WITHIN_S)

    assert isinstance(asked.result, Response)
    assert asked.result.headers == ()


def test_who_leaves_meanwhile_hears_nothing() -> None:
    """As while the server computes."""
    clock = Clock()
    asked, upstream = ask(clock)
    heard: list[object] = []
    asked.addCallbacks(heard.append, lambda failure: failure.trap(CancelledError))
    upstream.sent[0].done.callback(answer_of(Source()))

    asked.cancel()

    assert not heard
    assert not clock.getDelayedCalls()


@pytest.mark.parametrize("sha", ["a\r\nb", "", "\u00e9", "x" * 201, None])
def test_a_version_that_is_no_word_is_no_line(sha: str | None) -> None:
    """A server must not write lines of its own into answers of ours."""
    assert sha_line(Identity(models=("a",), sha=sha)) == ()
