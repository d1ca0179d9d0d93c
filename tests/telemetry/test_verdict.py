"""Is batching helping, and what limits it? An example for each answer."""

from typing import Any

import pytest

from abproxy.telemetry.advice import LimitsInForce
from abproxy.telemetry.totals import Totals
from abproxy.telemetry.verdict import Diagnosis, judge

HOUR = 3600.0
BY_DEFAULT = LimitsInForce(batch_items=32, batch_bytes=1_900_000)
BOTH_SEEN = {
    "alone_batches": 20,
    "alone_items": 40,
    "alone_s": 0.4,
    "shared_batches": 50,
    "shared_items": 1000,
    "shared_s": 2.0,
}
"""An input takes 10 ms alone, and 2 ms in company."""


def judged(**figures: Any) -> Diagnosis:
    """Judge an hour in which ten calls shared a batch, but for some *figures*."""
    usual = {"at": HOUR, "calls": 1000, "parts": 1000, "items": 2000, "batches": 100}
    lately = Totals(**{**usual, "requests": 100, **figures})
    return judge(lately, BY_DEFAULT)


def alone(**figures: Any) -> Diagnosis:
    """Judge an hour in which each call travelled by itself."""
    return judged(**{"batches": 1000, "requests": 1000, **figures})


def test_without_calls_there_is_nothing_to_judge() -> None:
    """Nobody is told that nothing helps."""
    verdict = judge(Totals(at=HOUR), BY_DEFAULT)

    assert verdict.helps is None
    assert verdict.text == "Nobody has asked lately."
    assert verdict.calls_per_request is None


def test_a_few_calls_tell_nothing() -> None:
    """Not even that something should be changed."""
    lately = Totals(at=HOUR, calls=99, parts=99, requests=99, refused_for_room=50)

    verdict = judge(lately, BY_DEFAULT)

    assert verdict.helps is None
    assert verdict.text == "Too few calls to tell: 99 were sent to the server lately."
    assert verdict.advice is None


def test_calls_under_way_are_calls() -> None:
    """Those that are not answered yet have asked all the same."""
    verdict = judge(Totals(at=1.0, parts=5), BY_DEFAULT)

    assert verdict.text == "Too few calls to tell: 5 were sent to the server lately."


def test_company_that_saves_time_helps() -> None:
    """What an input costs is told for both ways."""
    verdict = judged(**BOTH_SEEN)

    assert verdict.helps
    carries = "Batching helps. A request carries 10.0 calls"
    assert verdict.text == (
        f"{carries}; an input takes the server 2 ms in company, 10 ms alone."
    )


def test_company_that_saves_no_time_does_not_help() -> None:
    """A server that computes one input after the other gains nothing."""
    verdict = judged(**{**BOTH_SEEN, "shared_s": 9.5})

    assert verdict.helps is False
    assert verdict.text == (
        "A request carries 10.0 calls, but that saves no time: "
        "an input takes the server 9.5 ms in company, 10 ms alone."
    )


@pytest.mark.parametrize(
    ("shared_s", "spelled"),
    [(123.4, "120 ms"), (0.01234, "0.012 ms"), (1234.0, "1200 ms")],
)
def test_times_are_written_for_people(shared_s: float, spelled: str) -> None:
    """Two digits that count, and no exponent."""
    verdict = judged(**{**BOTH_SEEN, "shared_s": shared_s, "alone_s": 1e4})

    assert f"takes the server {spelled} in company" in verdict.text


@pytest.mark.parametrize(
    ("kind", "way"), [("alone_batches", "alone"), ("shared_batches", "together")]
)
def test_company_that_cannot_be_compared_is_company(kind: str, way: str) -> None:
    """Where all share batches, nobody knows what a call costs alone."""
    verdict = judged(**{**BOTH_SEEN, kind: 19})

    assert verdict.helps
    assert verdict.text == (
        f"A request carries 10.0 calls; too few went {way} to tell what that saves."
    )


def test_calls_that_come_alone_travel_alone() -> None:
    """Where nobody waits there is nothing to gain; some may differ, or be large."""
    verdict = alone(crowded_out=200, full=500)

    assert verdict.helps is False
    assert verdict.text == (
        "A request carries 1.0 calls: "
        "most come when no other waits, so there is nothing to gain."
    )


def test_calls_that_differ_travel_alone() -> None:
    """They wait together and leave apart."""
    verdict = alone(crowded_out=201)

    assert verdict.helps is False
    assert verdict.text == (
        "A request carries 1.0 calls: "
        "those that wait together differ in route, options or key."
    )


def test_calls_that_fill_a_request_travel_alone() -> None:
    """An import is cut into batches that are full already."""
    verdict = alone(full=501)

    assert verdict.text == "A request carries 1.0 calls: most fill it by themselves."


def test_batches_that_are_taken_apart_again_save_no_requests() -> None:
    """Bad inputs and broken connections undo what was shared."""
    verdict = alone(batches=100)

    assert verdict.text == (
        "A request carries 1.0 calls: "
        "many are sent again, after a bad input or a broken connection."
    )


@pytest.mark.parametrize(
    ("kept", "sentence"),
    [
        ("kept_by_upstream_s", "The server took no work 50% of the time."),
        (
            "kept_by_budget_s",
            "Full batches waited 50% of the time: the server is busy.",
        ),
        ("kept_by_slot_s", "Calls waited for a slot 50% of the time, and gathered."),
    ],
)
def test_what_limits_is_said(kept: str, sentence: str) -> None:
    """If it was there for more than a fifth of the time."""
    often, seldom = judged(**{kept: HOUR / 2}), judged(**{kept: HOUR / 6})

    assert often.text.endswith(f" {sentence}")
    assert "of the time" not in seldom.text


def test_who_waits_for_a_slot_and_stays_alone_has_not_gathered() -> None:
    """The one sentence does not contradict the other."""
    verdict = alone(crowded_out=500, kept_by_slot_s=HOUR / 2)

    assert verdict.text.endswith("Calls waited for a slot 50% of the time.")


def test_a_server_that_takes_no_work_is_the_first_to_mention() -> None:
    """It says more than that it is busy."""
    verdict = judged(kept_by_upstream_s=HOUR / 2, kept_by_budget_s=HOUR / 2)

    assert "took no work" in verdict.text
    assert "busy" not in verdict.text


def test_figures_stand_beside_the_words() -> None:
    """For whoever wants to judge by themselves."""
    kept = {"kept_by_slot_s": HOUR / 4, "kept_by_budget_s": HOUR / 10}

    verdict = judged(**BOTH_SEEN, **kept)

    assert verdict.calls == 1000
    assert verdict.calls_per_request == 10
    assert (verdict.alone_ms_per_item, verdict.shared_ms_per_item) == (10, 2)
    assert (verdict.slot_limited, verdict.budget_limited) == (0.25, 0.1)
    assert verdict.period_s == HOUR


def test_a_verdict_is_one_line_of_prose() -> None:
    """As the log says it."""
    assert str(judged()) == judged().text


def test_a_verdict_ends_with_what_would_help() -> None:
    """And why."""
    verdict = judged(refused_for_room=300)

    assert str(verdict) == (
        f"{verdict.text} What would help is a second or faster inference server: "
        "300 calls were refused, as too many waited for this one."
    )
