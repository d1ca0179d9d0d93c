"""Rows are only put together if they are of one model."""

import base64
import struct
from collections.abc import Sequence
from typing import Any

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from abproxy.dialects.call import Call, Dialect, PartResult, Rows
from abproxy.dialects.openai import OPENAI
from abproxy.dialects.tei import EMBED, EMBED_ALL, EMBED_SPARSE, PREDICT
from abproxy.http.messages import Response
from abproxy.upstream.identity import NO_IDENTITY, Identity, Source
from abproxy.upstream.joining import KNOWN_WITHIN_S, Joining
from support.batching import call_of

A, B = Identity(models=("a",)), Identity(models=("b",))
HALF, WHOLE = (Identity(models=("a",), dtype=each) for each in ("f16", "f32"))


def result(source: Source | None, *rows: bytes) -> PartResult:
    """Return rows of a source."""
    answer = Response(status=200, reason=b"", headers=(), body=b"", source=source)
    return PartResult(response=answer, rows=Rows(raw=rows or (b"[1,2]",)))


@define
class Joined:
    """Results that are to be joined, and what was said of that."""

    clock: Clock = field(factory=Clock)
    asked: list[Source] = field(factory=list)
    call: Call = field(factory=lambda: call_of("a", "b"))
    strict: bool = False

    def of(self, identity: Identity | None = None, **about: Any) -> Source:
        """Return a generation of a server."""
        source = Source(identity=identity, **about)
        source.ask = lambda: self.asked.append(source)
        return source

    def may(self, *results: PartResult) -> bool | Deferred[bool]:
        """Return what is said of *results*."""
        joining = Joining(clock=self.clock, strict=self.strict)
        return joining.may_join(self.call, results)

    def may_of(self, *sources: Source | None) -> bool | Deferred[bool]:
        """Return what is said of one row of each of *sources*."""
        return self.may(*map(result, sources))


def test_rows_of_one_generation_belong_together() -> None:
    """Whether it is known what it is or not."""
    joined = Joined()
    source = joined.of()

    assert joined.may_of(source, source) is True
    assert not joined.asked


def test_rows_of_no_known_source_belong_together() -> None:
    """Where nobody tells sources apart."""
    joined = Joined()

    assert joined.may_of(None, None, joined.of(A)) is True


@pytest.mark.parametrize(
    ("one", "other", "may"),
    [
        (A, A, True),
        (A, B, False),
        (NO_IDENTITY, NO_IDENTITY, True),
        (A, NO_IDENTITY, False),
        (HALF, WHOLE, True),
    ],
)
def test_rows_of_two_generations_belong_together_if_they_are_of_one_model(
    one: Identity, other: Identity, *, may: bool
) -> None:
    """What says nothing of itself is taken for itself, as long as it does."""
    joined = Joined()

    assert joined.may_of(joined.of(one), joined.of(other)) is may


def test_numbers_count_if_they_are_to() -> None:
    """MODEL_STRICT."""
    joined = Joined(strict=True)

    assert joined.may_of(joined.of(HALF), joined.of(WHOLE)) is False


def test_what_is_not_known_of_one_does_not_make_two_others_equal() -> None:
    """Each is compared with each."""
    shas = (Identity(models=("a",), sha=sha) for sha in (None, "1", "2"))
    joined = Joined()

    assert joined.may_of(*map(joined.of, shas)) is False


def test_the_model_that_is_asked_for_decides() -> None:
    """A hosted API may list one more at any time."""
    joined = Joined()
    one = joined.of(Identity(models=("a", "b")))
    other = joined.of(Identity(models=("a", "b", "c")))
    named = replace(joined.call.lane_key, options=b',"model":"a"')

    assert joined.may_of(one, other) is False
    joined.call = replace(joined.call, lane_key=named)
    assert joined.may_of(one, other) is True


def test_a_generation_that_had_another_model_at_last_is_of_neither() -> None:
    """Since when is not known."""
    joined = Joined()
    source = joined.of(A, later=B, is_over=True)

    assert joined.may_of(source, source) is False


def test_what_is_not_known_is_asked_for() -> None:
    """The rows wait for it."""
    joined = Joined()
    known, unknown = joined.of(A), joined.of()

    answer = joined.may_of(known, unknown)
    assert isinstance(answer, Deferred)
    assert joined.asked == [unknown]
    assert not answer.called

    unknown.settle(A)
    assert answer.result is True


def test_it_is_not_waited_for_ever() -> None:
    """A server that computes but does not say what it is is not believed."""
    joined = Joined()
    answer = joined.may_of(joined.of(A), joined.of())
    assert isinstance(answer, Deferred)

    joined.clock.advance(KNOWN_WITHIN_S)

    assert answer.result is False


def test_what_can_never_be_known_is_not_waited_for() -> None:
    """The server is gone."""
    joined = Joined()

    assert joined.may_of(joined.of(A), joined.of(is_over=True)) is False
    assert not joined.asked


def test_who_leaves_is_not_told() -> None:
    """Nothing is left behind."""
    joined = Joined()
    unknown = joined.of()
    answer = joined.may_of(joined.of(A), unknown)
    assert isinstance(answer, Deferred)
    told: list[object] = []
    answer.addCallbacks(told.append, lambda failure: failure.trap(CancelledError))

    answer.cancel()
    unknown.settle(A)

    assert not told
    assert not joined.clock.getDelayedCalls()


# By their length


def test_embeddings_of_two_lengths_are_of_two_models() -> None:
    """Whatever the server says, which is asked again."""
    joined = Joined()
    source = joined.of(A)

    assert joined.may(result(source, b"[1,2]"), result(source, b"[1,2,3]")) is False
    assert joined.asked == [source]


def test_rows_of_other_routes_may_have_any_length() -> None:
    """Theirs depends on the input."""
    joined = Joined()
    joined.call = replace(
        joined.call, lane_key=replace(joined.call.lane_key, dialect=EMBED_ALL)
    )

    assert joined.may(result(None, b"[[1]]"), result(None, b"[[1],[2]]")) is True


NUMBERS = st.lists(st.floats(allow_nan=False, width=32), min_size=1, max_size=9)


@given(numbers=NUMBERS, has_blanks=st.booleans(), is_first_of_two=st.booleans())
def test_the_numbers_of_an_embedding_are_counted(
    numbers: Sequence[float], *, has_blanks: bool, is_first_of_two: bool
) -> None:
    """In a list and in base64."""
    comma, colon = (b", ", b": ") if has_blanks else (b",", b":")
    array = b"[%b]" % comma.join(repr(each).encode() for each in numbers)
    packed = struct.pack(f"<{len(numbers)}f", *numbers)
    start = b'{"object"%b"embedding"%b"embedding"%b' % (colon, comma, colon)
    digits = b'"%b"' % base64.b64encode(packed)
    more = b",[1,2,3]" if is_first_of_two else b""

    assert EMBED.width(array + more) == len(numbers)
    assert OPENAI.width(start + array + b",") == len(numbers)
    assert OPENAI.width(start + digits + b',"index":0}') == len(numbers)


@pytest.mark.parametrize("dialect", [EMBED_ALL, EMBED_SPARSE, PREDICT])
def test_other_rows_have_no_length_of_their_own(dialect: Dialect) -> None:
    """Each input has its own."""
    assert dialect.width(b"[[1,2],[3,4]]") is None


def test_an_embedding_in_another_form_has_no_known_length() -> None:
    """It says nothing of the model."""
    assert OPENAI.width(b'{"embedding":null}') is None


def test_nothing_waits_any_more_when_the_proxy_stops() -> None:
    """No timer is left behind."""
    joined = Joined()
    joining = Joining(clock=joined.clock)
    answer = joining.may_join(joined.call, [result(joined.of(A)), result(joined.of())])
    assert isinstance(answer, Deferred)
    answer.addErrback(lambda failure: failure.trap(CancelledError))

    joining.stop()

    assert answer.called
    assert not joined.clock.getDelayedCalls()
