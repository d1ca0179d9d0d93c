"""An upstream that refuses everything is not asked more often for being shared."""

import pytest

from support.network import bound, is_ours, network

TOGETHER = {"max_wait_ms": 100.0, "max_batch_calls": 8}
SAME = b'{"error":"model not found"}'


def _calls(count: int = 8) -> list[dict[str, list[str]]]:
    return [{"inputs": [f"text {at}"]} for at in range(count)]


@pytest.mark.parametrize("status", [400, 401, 404, 422, 500])
def test_what_two_probes_are_told_alike_is_told_to_all(status: int) -> None:
    """A model that is not there is nobody's fault: everyone hears so."""
    with network(**TOGETHER) as here:
        here.upstream.refuse(status=status, body=SAME.decode())

        asked = [here.post(call) for call in _calls()]
        here.pass_(0.9)
        assert len(here.upstream.inputs) <= 3
        got = here.settle(*asked)

        assert got == [(status, SAME)] * 8
        assert len(here.upstream.inputs) <= 4


def test_what_probes_are_told_differently_is_told_to_nobody_else() -> None:
    """An answer that speaks of one call reaches that call alone, if it was alone."""
    with network(**TOGETHER) as here:
        for at in range(8):
            body = f'{{"error":"no text {at}"}}'
            here.upstream.refuse(text=f"text {at}", status=500, body=body)

        asked = [here.post(call) for call in _calls()]
        here.pass_(0.9)
        assert len(here.upstream.inputs) <= 3
        got = here.settle(*asked)

        own = [f'{{"error":"no text {at}"}}'.encode() for at in range(8)]
        told = [each == (500, body) for each, body in zip(got, own, strict=True)]
        assert [
            right or is_ours(each) for right, each in zip(told, got, strict=True)
        ] == [True] * 8
        assert told.count(True) == list(map(len, here.upstream.inputs)).count(1)


def test_a_lane_that_is_out_is_probed_once_a_second() -> None:
    """Batch after batch that comes meanwhile adds nothing."""
    with network(**TOGETHER) as here:
        here.upstream.refuse(status=500)
        here.settle(*[here.post(call) for call in _calls()])
        here.upstream.forget()
        asked = []
        for _ in range(50):
            asked += [here.post(call) for call in _calls()]
            here.pass_(0.1)

        assert len(here.upstream.inputs) <= 7
        here.settle(*asked)


def test_a_lane_that_was_out_is_back_when_a_probe_succeeds() -> None:
    """Calls of later are answered as if nothing had been."""
    with network(**TOGETHER) as here:
        here.upstream.refuse(status=500)
        here.settle(*[here.post(call) for call in _calls()])
        here.upstream.mend()
        here.pass_(2.0)
        here.settle(here.post({"inputs": ["one"]}))
        here.upstream.forget()

        got = here.settle(*[here.post(call) for call in _calls()])

        assert [status for status, _ in got] == [200] * 8
        assert len(here.upstream.inputs) == 1


def test_after_success_a_lane_is_out_after_as_many_failures_as_one_call_costs() -> None:
    """An upstream that breaks under way costs no more than a bad call would."""
    with network(**TOGETHER) as here:
        here.settle(here.post({"inputs": ["good"]}))
        here.upstream.refuse(status=500)
        here.upstream.forget()

        asked = [here.post(call) for call in _calls()]
        here.pass_(0.9)

        assert len(here.upstream.inputs) <= bound(8, 1)
        here.settle(*asked)
