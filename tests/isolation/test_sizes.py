"""What was too much in one request is learned, in whatever words it is refused."""

from typing import Any

import pytest
from attrs import evolve

from bench.breakable import Traits
from support.network import Network, network, rows_in

OPENAI = "/v1/embeddings"


def _round(here: Network, count: int, text: str = "text") -> list[int]:
    """Send many calls at once, and return their statuses."""
    here.upstream.forget()
    key = ("Authorization", "Bearer own")
    calls = [{"input": f"{text} {at}"} for at in range(count)]
    got = here.settle(*[here.post(call, key, path=OPENAI) for call in calls])
    alone = [here.alone(call, key, path=OPENAI) for call in calls]
    assert list(map(rows_in, got)) == list(map(rows_in, alone))
    return [status for status, _ in got]


SWIFT = Traits(openai=True, max_batch=2048, ms_per_input=1)
LATE = evolve(SWIFT, ms_per_input=400, workers=64, deadline_ms=1800)
SLOW = Traits(openai=True, max_batch=2048, ms_per_input=300)


@pytest.mark.parametrize("client", ["fast", "treq"])
def test_a_deadline_for_all_is_no_failure_of_one(client: str) -> None:
    """Each of twenty has its row in the end, and the next time none is too late."""
    batches: dict[str, Any] = {"upstream_timeout_s": 3, "max_batch_inputs": 32}
    with network(SLOW, client=client, **batches) as here:
        assert _round(here, 20) == [200] * 20
        here.pass_(1.0)
        before = here.upstream.seen.hung_up

        assert _round(here, 20) == [200] * 20
        assert here.upstream.seen.hung_up == before


@pytest.mark.parametrize("client", ["fast", "treq"])
@pytest.mark.parametrize("is_late", [False, True])
def test_a_gateway_that_gives_up_on_more_than_four_is_given_four(
    *, is_late: bool, client: str
) -> None:
    """Whether it says so at once or after a while, and the next time it need not."""
    traits = LATE if is_late else SWIFT
    with network(traits, client=client, max_wait_ms=100, max_batch_calls=20) as here:
        if not is_late:
            here.upstream.refuse(inputs=4, status=504)

        assert _round(here, 20) == [200] * 20
        assert len(here.upstream.inputs) <= 1 + 2 * 20
        here.pass_(1.0)

        assert _round(here, 20) == [200] * 20
        assert here.upstream.statuses.count(504) == 0
        here.pass_(1.0)

        assert _round(here, 20) == [200] * 20
        assert max(map(len, here.upstream.inputs)) > 1


@pytest.mark.parametrize("mood", ["ten-inputs", "one-input"])
def test_a_limit_that_no_info_tells_is_learned(mood: str) -> None:
    """All are answered, and the next time nothing is refused."""
    with network(mood=mood, max_wait_ms=100, max_batch_calls=16) as here:
        assert _round(here, 16) == [200] * 16
        here.pass_(1.0)

        assert _round(here, 16) == [200] * 16
        assert set(here.upstream.statuses) == {200}


def test_a_limit_by_number_is_kept_as_well_as_found() -> None:
    """Batches are as large as the upstream lets them be, not one by one for ever."""
    with network(mood="ten-inputs", max_wait_ms=100, max_batch_calls=16) as here:
        for _ in range(3):
            _round(here, 16)
            here.pass_(1.0)

        assert len(here.upstream.inputs) <= 4


def test_a_limit_that_was_learned_is_tried_again_after_ten_minutes() -> None:
    """One step up, as the upstream may take more by now."""
    with network(mood="ten-inputs", max_wait_ms=100, max_batch_calls=16) as here:
        _round(here, 16)
        _round(here, 16)
        before = max(map(len, here.upstream.inputs))
        here.upstream.mend()
        here.pass_(601)

        assert _round(here, 16) == [200] * 16
        assert before < max(map(len, here.upstream.inputs)) < 16


def test_a_429_for_size_is_followed_by_smaller_requests() -> None:
    """With the client's own key too, all sixteen have their rows."""
    with network(mood="quota", max_wait_ms=100, max_batch_calls=16) as here:
        assert _round(here, 16, "x" * 30) == [200] * 16
        here.pass_(2.0)

        assert _round(here, 16, "x" * 30) == [200] * 16
        assert 429 not in here.upstream.statuses


def test_the_first_retry_after_a_429_is_half_as_large() -> None:
    """Nobody waits for long to learn that size was the cause."""
    with network(mood="quota", max_wait_ms=100, max_batch_calls=16) as here:
        calls = [{"input": f"{'x' * 30} {at}"} for at in range(16)]
        here.settle(*[here.post(call, path=OPENAI) for call in calls])

        assert list(map(len, here.upstream.inputs))[:2] == [16, 8]


def test_a_limit_of_the_server_is_no_limit_for_a_call_of_its_own() -> None:
    """Once it is known, a call with more inputs is cut into what is taken."""
    with network(mood="ten-inputs", max_wait_ms=100, max_batch_calls=16) as here:
        _round(here, 16)
        call = {"input": [f"text {at}" for at in range(25)]}

        [told] = here.settle(here.post(call, path=OPENAI))

        here.upstream.mend()
        assert rows_in(told) == rows_in(here.alone(call, path=OPENAI))


TOO_LONG = (
    '{"error":"Input validation error: `inputs` must have less than 512 tokens. '
    'Given: 600","error_type":"Validation"}'
)


def test_who_was_refused_at_once_delays_nobody() -> None:
    """With two of twenty too long, the last good answer is as early as directly."""
    traits = Traits(ms_per_input=5)
    texts = ["x" * 60 if at in {4, 15} else f"text {at}" for at in range(20)]
    with network(traits, max_wait_ms=100, max_batch_calls=20) as here:
        here.upstream.refuse(longer=50, status=413, body=TOO_LONG)
        began_at = here.reactor.seconds()

        asked = [here.post({"inputs": [text]}) for text in texts]
        got = here.settle(*asked)

        good = [each for each, told in zip(asked, got, strict=True) if told[0] == 200]
        assert len(good) == 18
        last = max(each.answered_at or 0.0 for each in good) - began_at
        direct = 18 * traits.ms_per_input / 1000
        assert last <= 1.2 * direct
