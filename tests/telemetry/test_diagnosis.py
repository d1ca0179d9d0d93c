"""Whether batching helps, and what limits it: an example for each."""

from typing import Any

import pytest

from abproxy.telemetry.diagnosis import Diagnosis, about_slots, diagnose
from abproxy.telemetry.history import Totals
from telemetry.hours import BY_DEFAULT, HOUR, hour

BOTH_SEEN = {
    "alone_batches": 20,
    "alone_items": 40,
    "alone_s": 0.4,
    "shared_batches": 50,
    "shared_items": 1000,
    "shared_s": 2.0,
}
"""An input takes 10 ms alone, and 2 ms in a shared batch."""


def judged(**figures: Any) -> Diagnosis:
    """Judge an hour in which ten calls shared a batch, but for some *figures*."""
    return diagnose(hour(**figures), BY_DEFAULT)


def judged_alone(**figures: Any) -> Diagnosis:
    """Judge an hour in which each call travelled by itself."""
    return judged(**{"batches": 1000, "requests": 1000, **figures})


def test_without_calls_there_is_nothing_to_judge() -> None:
    """It is not said that nothing helps."""
    found = diagnose(Totals(at=HOUR), BY_DEFAULT)

    assert found.helps is None
    assert found.text == "No calls lately."
    assert found.calls_per_request is None


def test_a_few_calls_tell_nothing() -> None:
    """Not even that something should be changed."""
    lately = Totals(at=HOUR, calls=99, parts=99, requests=99, refused_for_room=50)

    found = diagnose(lately, BY_DEFAULT)

    assert found.helps is None
    assert found.text == "Too few calls to tell: 99 were sent to the server lately."
    assert found.advice is None


@pytest.mark.parametrize("told", ["1 was", "5 were"])
def test_calls_under_way_are_calls(told: str) -> None:
    """Those that are not answered yet have asked all the same."""
    count = int(told.split(maxsplit=1)[0])

    found = diagnose(Totals(at=1.0, parts=count), BY_DEFAULT)

    assert found.text == f"Too few calls to tell: {told} sent to the server lately."


def test_company_that_saves_time_helps() -> None:
    """What an input costs is told for both ways."""
    found = judged(**BOTH_SEEN)

    assert found.helps
    carries = "Batching helps. A request has 10.0 calls"
    assert found.text == (
        f"{carries}; an input takes the server 2 ms together, 10 ms alone."
    )


def test_company_that_saves_no_time_does_not_help() -> None:
    """A server that computes one input after the other gains nothing."""
    found = judged(**{**BOTH_SEEN, "shared_s": 9.5})

    assert found.helps is False
    assert found.text == (
        "A request has 10.0 calls, but that saves no time: "
        "an input takes the server 9.5 ms together, 10 ms alone."
    )


@pytest.mark.parametrize(
    ("shared_s", "spelled"),
    [(123.4, "120 ms"), (0.01234, "0.012 ms"), (1234.0, "1200 ms")],
)
def test_times_are_written_for_people(shared_s: float, spelled: str) -> None:
    """Two digits that count, and no exponent."""
    found = judged(**{**BOTH_SEEN, "shared_s": shared_s, "alone_s": 1e4})

    assert f"takes the server {spelled} together" in found.text


@pytest.mark.parametrize(
    ("kind", "way"), [("alone_batches", "alone"), ("shared_batches", "together")]
)
def test_company_that_cannot_be_compared_is_company(kind: str, way: str) -> None:
    """Where all share batches, what a call costs alone is unknown."""
    found = judged(**{**BOTH_SEEN, kind: 19})

    assert found.helps
    assert found.text == (
        f"A request has 10.0 calls; too few were sent {way} to tell what that saves."
    )


def test_calls_that_come_alone_travel_alone() -> None:
    """Where no call waits there is nothing to gain; some may differ, or be large."""
    found = judged_alone(crowded_out=200, full=500)

    assert found.helps is False
    assert found.text == (
        "A request has 1.0 calls: "
        "most calls come when no other waits, so there is nothing to gain."
    )


def test_calls_that_differ_travel_alone() -> None:
    """They wait together and leave apart."""
    found = judged_alone(crowded_out=201)

    assert found.helps is False
    assert found.text == (
        "A request has 1.0 calls: "
        "calls that wait at the same time differ in route, options or key."
    )


def test_calls_that_fill_a_request_travel_alone() -> None:
    """An import is cut into batches that are full already."""
    found = judged_alone(full=501)

    assert (
        found.text == "A request has 1.0 calls: most calls fill a batch by themselves."
    )


def test_batches_that_are_taken_apart_again_save_no_requests() -> None:
    """Bad inputs and broken connections undo what was shared."""
    found = judged_alone(batches=100)

    assert found.text == (
        "A request has 1.0 calls: "
        "many batches are sent again, after a bad input or a broken connection."
    )


@pytest.mark.parametrize(
    ("kept", "sentence"),
    [
        (
            "kept_by_upstream_s",
            "The server was unreachable or overloaded 50% of the time.",
        ),
        (
            "kept_by_budget_s",
            "Full batches waited 50% of the time: the server is busy.",
        ),
        ("kept_by_account_s", "Calls waited for the account's minute 50% of the time."),
        ("kept_by_slot_s", "Calls waited for a slot 50% of the time, so batches grew."),
    ],
)
def test_what_limits_is_said(kept: str, sentence: str) -> None:
    """If it was there for more than a fifth of the time."""
    often, seldom = judged(**{kept: HOUR / 2}), judged(**{kept: HOUR / 6})

    assert often.text.endswith(f" {sentence}")
    assert "of the time" not in seldom.text


def test_calls_that_wait_for_a_slot_and_stay_alone_have_not_gathered() -> None:
    """The one sentence does not contradict the other."""
    found = judged_alone(crowded_out=500, kept_by_slot_s=HOUR / 2)

    assert found.text.endswith("Calls waited for a slot 50% of the time.")


def test_a_server_that_takes_no_work_is_the_first_to_mention() -> None:
    """It says more than that it is busy."""
    found = judged(kept_by_upstream_s=HOUR / 2, kept_by_budget_s=HOUR / 2)

    assert "unreachable or overloaded" in found.text
    assert "busy" not in found.text


def test_a_higher_rate_limit_is_what_would_help_a_busy_account() -> None:
    """No setting of ours makes its minute longer."""
    found = judged(kept_by_account_s=HOUR / 2)

    assert found.account_limited == 0.5
    assert found.limited_by == "account"
    assert found.advice is not None
    assert found.advice.setting.startswith("a higher rate limit of the account")


def test_figures_stand_beside_the_words() -> None:
    """For operators who want to judge for themselves."""
    kept = {"kept_by_slot_s": HOUR / 4, "kept_by_budget_s": HOUR / 10}

    found = judged(**BOTH_SEEN, **kept)

    assert found.calls == 1000
    assert found.calls_per_request == 10
    assert (found.alone_ms_per_item, found.shared_ms_per_item) == (10, 2)
    assert (found.slot_limited, found.budget_limited) == (0.25, 0.1)
    assert found.period_s == HOUR


def test_a_diagnosis_is_one_line_of_prose() -> None:
    """As the log says it."""
    assert str(judged()) == judged().text


def test_a_diagnosis_ends_with_what_would_help() -> None:
    """And why."""
    found = judged(refused_for_room=300)

    assert str(found) == (
        f"{found.text} What would help is a second or faster inference server: "
        "300 calls were refused, because too many waited for this one."
    )


def told_of_slots(**gauges: float) -> str:
    """Tell of slots on the lowest rung but for some *gauges*, without `ladder_`."""
    usual = {"rung": 1, "holds": 1, "trying": 0, "trials": 12, "looks_to_trial": 40}
    named = {f"ladder_{name}": value for name, value in {**usual, **gauges}.items()}
    return about_slots({"slots": gauges.get("slots", 1), **named})


def test_it_is_told_which_rung_is_in_force_and_that_calls_are_held() -> None:
    """And when another one is tried."""
    assert told_of_slots() == (
        "At most 1 batch that is not full in flight, the next held a moment for "
        "callers who were just answered: rung 1 of 6, found by 12 trials. "
        "The next trial comes after 40 looks at how long calls stay."
    )


def test_one_trial_and_one_look_are_in_the_singular() -> None:
    """As an operator would write it."""
    told = told_of_slots(trials=1, looks_to_trial=1)

    assert told.endswith(
        "found by 1 trial. The next trial comes after 1 look at how long calls stay."
    )


def test_it_is_told_what_is_being_tried() -> None:
    """And what for."""
    assert told_of_slots(slots=2, rung=2, holds=0, trying=1) == (
        "Being tried: at most 2 batches that are not full in flight. "
        "It is kept if calls stay for less time."
    )


def test_it_is_told_that_nothing_was_tried_yet() -> None:
    """Nor will be, as long as there is nothing to be learned."""
    told = told_of_slots(slots=8, rung=4, holds=0, trials=0, looks_to_trial=0)

    assert told == (
        "At most 8 batches that are not full in flight: rung 4 of 6, where trials "
        "begin. The next trial comes when it would show something and calls stay as "
        "long as usual."
    )


def test_it_is_told_that_all_calls_leave_at_once() -> None:
    """However many slots that are, with several servers or workers."""
    told = told_of_slots(slots=1024, rung=6, holds=0)

    assert told.startswith("All calls leave at once, as without a proxy: rung 6 of 6")


def test_it_is_told_that_the_number_of_slots_is_fixed() -> None:
    """Then there is nothing to try."""
    told = told_of_slots(slots=4, rung=0, holds=0)

    assert told == "SLOTS fixes how many batches in flight may not be full: 4."
