"""Which servers have the same model, and which model is served."""

from collections.abc import Sequence

import pytest
from twisted.internet.defer import CancelledError

from abproxy.upstream.identity import (
    NO_IDENTITY,
    Identity,
    Source,
    choose_served,
    same_model,
    takes_over,
    why_refused,
)


def of(*models: str, sha: str | None = None, dtype: str | None = None) -> Identity:
    """Return the identity of a server."""
    return Identity(models=models, sha=sha, dtype=dtype)


A, B = of("a"), of("b")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (A, A),
        (of("a", sha="1"), of("a", sha="1")),
        (of("a", sha="1"), A),
        (of("a", dtype="float16"), of("a", dtype="float32")),
        (of("a", "b"), of("a", "b")),
        (NO_IDENTITY, NO_IDENTITY),
    ],
)
def test_equal_ids_are_one_model(one: Identity, other: Identity) -> None:
    """A sha counts where both say one."""
    assert same_model(one, other)
    assert same_model(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (A, B),
        (of("a", sha="1"), of("a", sha="2")),
        (of("a", sha="1"), of("b", sha="1")),
        (of("a", "b"), A),
        (A, NO_IDENTITY),
    ],
)
def test_other_ids_or_shas_are_another_model(one: Identity, other: Identity) -> None:
    """What is not known of one server cannot be taken to be equal."""
    assert not same_model(one, other)
    assert not same_model(other, one)


def test_numbers_count_only_if_they_are_to() -> None:
    """The same model in other numbers has rows that differ in the last digits."""
    half, whole = of("a", dtype="float16"), of("a", dtype="float32")

    assert same_model(half, whole)
    assert not same_model(half, whole, strict=True)
    assert same_model(half, half, strict=True)


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        (of("a", "b"), A, True),
        (of("a", "b"), of("a", "c"), True),
        (of("a", "b"), B, False),
        (of("b", "c"), of("b", "c"), True),
        (B, of("c"), False),
    ],
)
def test_the_model_that_is_asked_for_counts(
    one: Identity, other: Identity, *, is_same: bool
) -> None:
    """Whatever else a server lists; a name on no list means what the server has."""
    assert same_model(one, other, asked="a") is is_same
    assert same_model(other, one, asked="a") is is_same


@pytest.mark.parametrize(
    ("served", "other", "fits"),
    [
        (A, A, True),
        (A, of("a", "b"), True),
        (of("a", "b"), A, False),
        (NO_IDENTITY, A, False),
        (of("a", sha="1"), of("a", "b", sha="2"), False),
    ],
)
def test_a_server_may_list_more_than_is_served(
    served: Identity, other: Identity, *, fits: bool
) -> None:
    """Calls for what it lacks would be refused; none asks for what it adds."""
    assert takes_over(served, other) is fits


@pytest.mark.parametrize(
    ("served", "usable", "chosen"),
    [
        (None, [], None),
        (None, [B, A, A], B),
        (A, [], A),
        (A, [B, B, A], A),
        (A, [B], B),
        (A, [of("c"), B, B], B),
        (of("a", sha="1"), [A, B, B], of("a", sha="1")),
    ],
)
def test_the_first_model_is_served_as_long_as_it_is_there(
    served: Identity | None, usable: Sequence[Identity], chosen: Identity | None
) -> None:
    """Then the one that most have."""
    assert choose_served(served, usable) == chosen


def test_a_model_in_other_numbers_takes_over_only_if_that_is_allowed() -> None:
    """Otherwise the fleet would change its numbers, and forget what it knows."""
    half, whole = of("a", dtype="float16"), of("a", dtype="float32")

    assert choose_served(half, [whole]) == half
    assert choose_served(half, [whole], strict=True) == whole


@pytest.mark.parametrize(
    ("identity", "words"),
    [
        (NO_IDENTITY, "a model that it does not name"),
        (A, "a"),
        (of("a", sha="1", dtype="float16"), "a (1, float16)"),
        (of("a", "b", "c", "d", "e"), "a, b, c and 2 more"),
    ],
)
def test_an_identity_is_written_for_an_operator(identity: Identity, words: str) -> None:
    """As lines of the log and the page say it."""
    assert str(identity) == words


def test_a_server_hears_why_it_gets_no_calls() -> None:
    """The line names both models."""
    why = "it has b, where a is served: it gets no calls until it has"

    assert why_refused(A, B) == why
    assert not why_refused(A, of("a", "b"))


# Generations


def test_who_waits_for_an_identity_lets_it_be_asked_for() -> None:
    """What nobody waits for is asked for in its time."""
    asked: list[None] = []
    source = Source(ask=lambda: asked.append(None))

    known = source.known()
    assert asked == [None]
    assert not known.called

    source.settle(A)
    assert known.called


def test_what_is_known_is_not_asked_for() -> None:
    """Nor what can never be known."""
    asked: list[None] = []
    source = Source(ask=lambda: asked.append(None), identity=A)
    over = Source(ask=lambda: asked.append(None), is_over=True)

    assert source.known().called
    assert over.known().called
    assert not asked


def test_nobody_waits_for_a_generation_that_is_over() -> None:
    """What it had can never be known."""
    source = Source()
    known = source.known()

    source.end()

    assert known.called
    assert source.identity is None


def test_one_who_waits_may_leave() -> None:
    """And the others are told."""
    source = Source()
    left, stays = source.known(), source.known()
    left.addErrback(lambda failure: failure.trap(CancelledError))

    left.cancel()
    source.settle(A)

    assert stays.called
