"""Whether batching helps, what limits it, what would help: an example for each."""

from typing import Any

import pytest
from attrs import evolve

from abproxy.telemetry.advice import LimitsInForce, Recommendation, advise
from abproxy.telemetry.diagnosis import Diagnosis, about_slots, diagnose
from abproxy.telemetry.history import Totals

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
"""An input takes 10 ms alone, and 2 ms in a shared batch."""


def hour(**figures: Any) -> Totals:
    """Count an hour in which ten calls shared a batch that was not full."""
    usual = {"at": HOUR, "calls": 1000, "parts": 1000, "items": 2000, "batches": 100}
    return Totals(**{**usual, "requests": 100, **figures})


def alone(**figures: Any) -> Totals:
    """Count an hour in which each call travelled by itself."""
    return hour(**{"batches": 1000, "requests": 1000, **figures})


def judged(**figures: Any) -> Diagnosis:
    """Judge an hour in which ten calls shared a batch, but for some *figures*."""
    return diagnose(hour(**figures), BY_DEFAULT)


def judged_alone(**figures: Any) -> Diagnosis:
    """Judge an hour in which each call travelled by itself."""
    return judged(**{"batches": 1000, "requests": 1000, **figures})


FEW = {"few_batches": 20, "few_items": 80, "few_s": 0.1}
MANY = {"many_batches": 90, "many_items": 2880, "many_s": 0.54}
"""Requests with 4 inputs take 5 ms, and those with 32 take 6 ms."""


def full_at_the_servers_cap(**figures: Any) -> str:
    """Judge an hour of full batches, and return why more would help."""
    limits = evolve(BY_DEFAULT, upstream_max_items=32)
    usual = {"full": 90, "items": 3000}
    found = advise(hour(**{**usual, **FEW, **MANY, **figures}), limits)
    assert found is not None
    assert found.setting.endswith("(--max-client-batch-size)")
    return found.why


def test_a_server_whose_time_hardly_grows_with_inputs_would_take_more() -> None:
    """As a GPU does, which is not busy with them."""
    assert full_at_the_servers_cap() == (
        "90% of the batches are full at 32 inputs, which is all that it accepts; "
        "the server would take more at once: 32 inputs take 6 ms, 4 take 5 ms"
    )


@pytest.mark.parametrize(
    "figures",
    [
        {"many_s": 90 * 0.0076},
        {"few_batches": 19},
        {"many_batches": 19},
        {"few_items": 20 * 11},
    ],
)
def test_of_any_other_server_that_is_not_said(figures: dict[str, Any]) -> None:
    """Its time grows, or too little is known of it."""
    assert "would take more" not in full_at_the_servers_cap(**figures)


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


def test_calls_under_way_are_calls() -> None:
    """Those that are not answered yet have asked all the same."""
    found = diagnose(Totals(at=1.0, parts=5), BY_DEFAULT)

    assert found.text == "Too few calls to tell: 5 were sent to the server lately."


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


def told(lately: Totals, **limits: Any) -> Recommendation:
    """Return what is recommended."""
    advice = advise(lately, evolve(BY_DEFAULT, **limits))
    assert advice is not None
    return advice


def test_where_all_is_well_nothing_is_advised() -> None:
    """Neither where calls share batches, nor where they come alone."""
    assert advise(hour(), BY_DEFAULT) is None
    assert advise(alone(), BY_DEFAULT) is None
    assert advise(Totals(), BY_DEFAULT) is None


def test_refused_calls_need_another_server() -> None:
    """No setting of ours makes a server faster."""
    advice = told(hour(refused_for_room=11))

    assert advice.setting == "a second or faster inference server"
    assert advice.why == "11 calls were refused, because too many waited for this one"


def test_a_refusal_now_and_then_is_no_reason_to_buy_a_server() -> None:
    """One in a hundred is a peak."""
    assert advise(hour(refused_for_room=10), BY_DEFAULT) is None


def test_a_wait_that_finds_no_company_is_given_up() -> None:
    """It costs each call its time and gains nothing."""
    advice = told(alone(), max_wait_ms=20.0)

    assert advice.setting == "MAX_WAIT_TIME=0"
    held = "calls are held for 20 ms, but no others join them"
    assert advice.why == f"{held}; with 0 they are sent at once"


def test_a_wait_that_finds_company_is_kept() -> None:
    """The operator wanted it so, and it works."""
    assert advise(hour(), evolve(BY_DEFAULT, max_wait_ms=20.0)) is None


def test_a_budget_that_keeps_full_batches_is_taken_away() -> None:
    """If the operator has set one."""
    advice = told(hour(kept_by_budget_s=HOUR / 4), budget=64)

    assert advice.setting == "BUDGET"
    waited = (
        "full batches waited 25% of the time, because you allow 64 inputs in flight"
    )
    assert advice.why == f"{waited}; if unset, it adapts to the server"


@pytest.mark.parametrize(
    ("kept_s", "budget"), [(HOUR / 4, None), (HOUR / 6, 64)], ids=["own", "seldom"]
)
def test_a_budget_that_follows_or_seldom_keeps_is_left(
    kept_s: float, budget: int | None
) -> None:
    """There is no setting to change, or no need to."""
    limits = evolve(BY_DEFAULT, budget=budget)

    assert advise(hour(kept_by_budget_s=kept_s), limits) is None


def test_slots_that_keep_calls_that_stay_alone_are_taken_away() -> None:
    """If the operator has set them."""
    advice = told(alone(kept_by_slot_s=HOUR / 4), slots=1)

    assert advice.setting == "SLOTS"
    allowed = "because you allow 1 in flight that are not full"
    waited = f"batches waited 25% of the time, {allowed}"
    assert advice.why == f"{waited}; if unset, it adapts to the server"


@pytest.mark.parametrize(
    ("lately", "slots"),
    [
        (hour(kept_by_slot_s=HOUR / 4), 1),
        (alone(kept_by_slot_s=HOUR / 6), 1),
        (alone(kept_by_slot_s=HOUR / 4), None),
    ],
    ids=["they gather", "seldom", "own"],
)
def test_slots_for_which_calls_gather_are_left(
    lately: Totals, slots: int | None
) -> None:
    """Waiting for a slot is how batches grow."""
    assert advise(lately, evolve(BY_DEFAULT, slots=slots)) is None


def test_batches_that_are_full_of_calls_may_hold_more() -> None:
    """The limit is the operator's own."""
    advice = told(hour(full=60), max_batch_calls=10)

    assert advice.setting == "MAX_BATCH_SIZE"
    limited = "60% of the batches are full, because you limit the calls in one to 10"
    assert advice.why == f"{limited}; if unset, as many share one as fit"


def test_one_call_in_a_batch_is_no_batching() -> None:
    """An operator who allows no more is told why nothing is shared."""
    advice = told(alone(full=1000), max_batch_calls=1)

    assert advice.setting == "MAX_BATCH_SIZE"
    assert "because you limit the calls in one to 1;" in advice.why


def test_batches_that_are_full_of_inputs_may_hold_more() -> None:
    """Also where the limit of calls is far away."""
    lately = hour(full=85, items=3000)

    advice = told(lately, max_batch_calls=1000)

    why = "85% of the batches are full at 32 inputs; try more"
    assert advice == Recommendation("MAX_BATCH_INPUTS", why)
    assert told(lately) == advice
    assert told(lately, upstream_max_items=64) == advice


def test_batches_that_are_full_of_bytes_may_hold_more() -> None:
    """Long texts fill them long before there are too many."""
    lately = hour(full=85, size=180_000_000)

    advice = told(lately, max_batch_calls=1000)

    assert advice.setting == "MAX_BATCH_BYTES"
    assert advice.why == (
        "85% of the batches are full at 1,900,000 bytes; try more, if the inference "
        "server accepts larger bodies (--payload-limit)"
    )


def test_what_the_server_does_not_take_is_a_setting_of_the_server() -> None:
    """Ours would only be refused."""
    advice = told(hour(full=85, items=3000), upstream_max_items=32)

    assert advice.setting == (
        "a higher limit of the inference server (--max-client-batch-size)"
    )
    full = "85% of the batches are full at 32 inputs"
    assert advice.why == f"{full}, which is all that it accepts"


@pytest.mark.parametrize("lately", [hour(full=49), alone(full=1000)])
def test_full_batches_are_fine_if_few_or_of_one_call(lately: Totals) -> None:
    """A large call that fills batches by itself gains nothing from larger ones."""
    assert advise(lately, BY_DEFAULT) is None


def test_clients_who_differ_in_their_keys_only_may_share_one() -> None:
    """One key for the server, and the clients' own for us."""
    advice = told(alone(crowded_out=300, crowded_out_by_key=201))

    assert advice.setting == "INFERENCE_SERVICE_KEY"
    assert advice.why == (
        "calls with different keys share no batch; with one key for the inference "
        "server, and the clients' keys in API_KEY, they do"
    )


def test_clients_who_differ_otherwise_are_left_apart() -> None:
    """What they ask for is not the same."""
    assert advise(alone(crowded_out=500, crowded_out_by_key=200), BY_DEFAULT) is None


def test_the_most_urgent_speaks_first() -> None:
    """There is one advice at a time."""
    lately = hour(refused_for_room=500, kept_by_budget_s=HOUR, full=100)

    advice = told(lately, budget=64, max_batch_calls=10)

    assert advice.setting == "a second or faster inference server"


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
