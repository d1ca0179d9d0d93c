"""What would help most: an example for each recommendation."""

from typing import Any

import pytest
from attrs import evolve

from abproxy.telemetry.advice import Recommendation, advise
from abproxy.telemetry.history import Totals
from telemetry.hours import BY_DEFAULT, HOUR, alone, hour


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
