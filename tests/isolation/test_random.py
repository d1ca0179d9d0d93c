"""Whatever an upstream refuses, a shared call gets what it would get alone."""

from typing import Any

from attrs import frozen
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st

from bench.breakable import Traits
from bench.breakable.refusals import Refusal
from support.network import Network, bound, is_ours, network

OK = 200
TOO_MANY_REQUESTS = 429
"""What is refused with this is asked again, as long as patience lasts."""

TOO_MUCH = {TOO_MANY_REQUESTS, 504}
"""What a call may be told for its size: once that is learned, it is split."""

STATUSES = st.sampled_from([400, 403, 404, 413, 422, 424, 500])
BODIES = st.sampled_from(["", '{"error":"no","error_type":"Validation"}', "<p>no</p>"])
REFUSALS = (
    st.builds(Refusal, text=st.sampled_from(["w", "v"]), status=STATUSES, body=BODIES)
    | st.builds(Refusal, longer=st.just(3), status=STATUSES, body=BODIES)
    | st.builds(
        Refusal,
        inputs=st.integers(1, 6),
        status=st.sampled_from([400, 413, 422, 429, 500]),
        body=BODIES,
    )
    | st.builds(
        Refusal,
        characters=st.integers(4, 20),
        status=st.sampled_from([400, 413, 429, 500]),
        body=BODIES,
    )
    | st.builds(Refusal, status=STATUSES, body=BODIES)
)
"""By what is in one item, by several items, by their size, or by everything."""

TRAITS = st.builds(
    Traits,
    ms_per_input=st.just(500),
    workers=st.just(64),
    deadline_ms=st.sampled_from([0, 0, 1200, 2200]),
    nan_text=st.sampled_from(["", "n"]),
    shape=st.sampled_from(["", "", "embeddings"]),
)
"""In time or not, with rows that are none, or in a form that cannot be split."""

CALLS = st.lists(
    st.lists(st.text("abnvw", min_size=1, max_size=4), min_size=1, max_size=3),
    min_size=1,
    max_size=10,
)


@frozen(kw_only=True)
class Drawn:
    """An upstream's rule, and the calls that meet it together."""

    refusals: list[Refusal]
    traits: Traits
    calls: list[list[str]]
    was_answered: bool
    """Whether the lane has had an answer before."""

    @property
    def is_about_items(self) -> bool:
        """Return whether what fails together does so only for what fails alone."""
        limits = (max(each.inputs, each.characters) for each in self.refusals)
        is_whole = self.traits.shape != "embeddings" and not self.traits.deadline_ms
        return is_whole and not any(limits)


DRAWN = st.builds(
    Drawn,
    refusals=st.lists(REFUSALS, max_size=2),
    traits=TRAITS,
    calls=CALLS,
    was_answered=st.booleans(),
)


def _ask(here: Network, drawn: Drawn) -> tuple[list[Any], list[Any]]:
    calls = [{"inputs": texts} for texts in drawn.calls]
    if drawn.was_answered:
        here.settle(here.post({"inputs": ["a"]}))
    here.upstream.refusals += drawn.refusals
    alone = [here.alone(call) for call in calls]
    here.upstream.forget()
    return here.settle(*[here.post(call) for call in calls]), alone


def _is_told_to_two(told: tuple[int, bytes], alone: list[Any]) -> bool:
    """Return whether two probes may have been told this, byte for byte."""
    return told[0] != OK and alone.count(told) > 1


def _may_be_split(here: Network, texts: list[str], told: tuple[int, bytes]) -> bool:
    """
    Return whether a call that is too large may have been told this after all.

    In several requests it may pass, or one of these is refused for what is in it.
    """
    if told[0] == OK:
        return True
    pieces = [
        texts[start:end]
        for start in range(len(texts))
        for end in range(start + 1, len(texts) + 1)
    ]
    return told in [here.alone({"inputs": piece}) for piece in pieces]


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@example(
    Drawn(
        refusals=[Refusal(characters=4, status=429), Refusal(text="w", status=400)],
        traits=Traits(ms_per_input=500, workers=64),
        calls=[["a"], ["w", "aaaa"]],
        was_answered=False,
    )
)
@given(DRAWN)
def test_each_caller_gets_what_it_would_get_alone(drawn: Drawn) -> None:
    """Or, where two and more fail alone, our error or theirs; and within the bound."""
    count = len(drawn.calls)
    about = {"max_wait_ms": 100, "max_batch_calls": count, "upstream_timeout_s": 20}
    with network(drawn.traits, **about) as here:
        got, alone = _ask(here, drawn)

        bad = sum(status != 200 or b"NaN" in body for status, body in alone)
        event(f"{bad} of {count} fail alone")
        wrong = [
            (texts, each, own)
            for texts, each, own in zip(drawn.calls, got, alone, strict=True)
            if each != own
            and not (bad > 1 and (is_ours(each) or _is_told_to_two(each, alone)))
            and not (own[0] == each[0] == TOO_MANY_REQUESTS)
            and not (own[0] in TOO_MUCH and _may_be_split(here, texts, each))
        ]
        assert not wrong, drawn
        if TOO_MANY_REQUESTS not in here.upstream.statuses:
            causes = bad if drawn.is_about_items else count
            assert len(here.upstream.requests) <= bound(count, causes), drawn
