"""A call that fails for what is in it fails alone, whatever the upstream says."""

from typing import Any

import pytest

from bench.breakable import Traits
from support.network import Network, bound, is_ours, network, rows_in

TOGETHER: dict[str, Any] = {"max_wait_ms": 100, "max_batch_calls": 8}
CLIENTS = ["fast", "treq"]
BAD = {
    "too long": ("llama.cpp", "x" * 600, "/v1/embeddings"),
    "no norm": ("llama.cpp", "NO-NORM", "/v1/embeddings"),
    "firewall": ("firewall", "x; DROP TABLE y", "/embed"),
    "firewall before OpenAI": ("firewall", "x; DROP TABLE y", "/v1/embeddings"),
    "NaN": ("nan", "NAN", "/embed"),
}


def bodies(texts: list[str], path: str) -> list[dict[str, Any]]:
    """Write a call for each of the *texts*."""
    member = "inputs" if path == "/embed" else "input"
    return [{member: [text]} for text in texts]


def mixed(bad: str, places: list[int], count: int = 8) -> list[str]:
    """Return texts that are all good, but for *bad* ones in these *places*."""
    return [f"{bad}{at}" if at in places else f"good {at}" for at in range(count)]


def all_at_once(here: Network, calls: list[dict[str, Any]], path: str) -> Any:
    """Send all *calls* in one turn; return what each gets, and what it would alone."""
    here.upstream.forget()
    got = here.settle(*[here.post(call, path=path) for call in calls])
    alone = [here.alone(call, path=path) for call in calls]
    return [rows_in(told) for told in got], [rows_in(told) for told in alone]


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("place", [0, 3, 7])
@pytest.mark.parametrize("kind", BAD)
def test_one_bad_call_of_eight_is_the_only_one_that_fails(
    kind: str, place: int, client: str
) -> None:
    """Each gets what it would get alone, though nothing was answered before."""
    mood, bad, path = BAD[kind]
    with network(mood=mood, client=client, **TOGETHER) as here:
        calls = bodies(mixed(bad, [place]), path)

        got, alone = all_at_once(here, calls, path)

        assert got == alone
        assert len(here.upstream.inputs[0]) == 8
        assert len(here.upstream.inputs) <= bound(8, 1)


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("places", [[0, 7], [0, 1], [6, 7], [3, 4]])
@pytest.mark.parametrize("kind", BAD)
def test_two_bad_calls_of_eight_are_the_only_ones_that_fail(
    kind: str, places: list[int], client: str
) -> None:
    """Where something was answered just now, two failures do not condemn a lane."""
    mood, bad, path = BAD[kind]
    with network(mood=mood, client=client, **TOGETHER) as here:
        [first] = bodies(["something good"], path)
        assert here.settle(here.post(first, path=path))[0][0] == 200

        calls = bodies(mixed(bad, places), path)
        got, alone = all_at_once(here, calls, path)

        assert got == alone
        assert len(here.upstream.inputs) <= bound(8, 2)


@pytest.mark.parametrize("places", [[0, 7], [0, 1], [6, 7], [3, 4]])
def test_two_bad_calls_of_a_new_lane_show_nobody_their_answer(
    places: list[int],
) -> None:
    """Where nothing was answered yet, the others hear of us at worst."""
    with network(mood="llama.cpp", **TOGETHER) as here:
        calls = bodies(mixed("NO-NORM", places), "/v1/embeddings")

        got, alone = all_at_once(here, calls, "/v1/embeddings")

        assert [
            each == own or is_ours(each) for each, own in zip(got, alone, strict=True)
        ] == [True] * 8
        assert len(here.upstream.inputs) <= bound(8, 2)


def test_a_row_with_nan_is_the_fault_of_one_of_sixteen() -> None:
    """Its sender gets the bytes that it would get alone, the others their rows."""
    with network(mood="nan", max_wait_ms=100, max_batch_calls=16) as here:
        calls = bodies(mixed("NAN", [9], 16), "/embed")

        got, alone = all_at_once(here, calls, "/embed")

        assert got == alone
        assert [status for status, _ in got] == [200] * 16
        assert len(here.upstream.inputs) <= bound(16, 1)


@pytest.mark.parametrize("text", ["NO-NORM", "NO-NORM of round {}"])
def test_neighbours_of_who_repeats_itself_stop_paying(text: str) -> None:
    """By what it sends, or by who it is, a bad caller comes to travel apart."""
    with network(mood="llama.cpp", **TOGETHER) as here:
        callers = [here.connect() for _ in range(8)]
        for turn in range(6):
            here.pass_(1.0)
            here.upstream.forget()
            texts = [text.format(turn), *(f"good {at}" for at in range(7))]
            calls = bodies(texts, "/v1/embeddings")
            asked = [
                here.post(call, path="/v1/embeddings", client=caller)
                for call, caller in zip(calls, callers, strict=True)
            ]
            got = here.settle(*asked)
            assert [status for status, _ in got] == [500] + [200] * 7

        assert sorted(map(len, here.upstream.inputs)) == [1, 7]


@pytest.mark.parametrize("status", [400, 403, 404, 413, 422, 424, 500, 502, 504])
def test_no_status_by_itself_condemns_a_batch(status: int) -> None:
    """One bad call is found whatever number the upstream gives it."""
    with network(**TOGETHER) as here:
        here.upstream.refuse(text="WORD", status=status, body='{"why":"the word"}')
        calls = bodies(mixed("WORD", [5]), "/embed")

        got, alone = all_at_once(here, calls, "/embed")

        assert got == alone
        assert len(here.upstream.inputs) <= bound(8, 1)


@pytest.mark.parametrize("status", [400, 403, 404, 413, 422, 500])
@pytest.mark.parametrize("client", CLIENTS)
def test_a_lone_call_pays_nothing(client: str, status: int) -> None:
    """It is sent once, and its answer is the upstream's, byte for byte."""
    with network(client=client) as here:
        here.upstream.refuse(text="WORD", status=status, body='{"why":"the word"}')
        [call] = bodies(["WORD"], "/embed")

        got, alone = all_at_once(here, [call], "/embed")

        assert got == alone
        assert len(here.upstream.inputs) == 1


def test_a_part_that_fails_alone_fails_its_call_only() -> None:
    """Of a call that was split, the rest is not computed for nothing."""
    with network(Traits(ms_per_input=10), max_batch_inputs=4) as here:
        here.upstream.refuse(text="WORD", status=500, body='{"why":"the word"}')
        large = {"inputs": [f"t{at}" for at in range(39)] + ["WORD"]}
        large["inputs"][2] = "WORD"

        asked = here.post(large), here.post({"inputs": ["good"]})
        [first, second] = here.settle(*asked)

        assert first == (500, b'{"why":"the word"}')
        assert second == here.alone({"inputs": ["good"]})
        assert sum(map(len, here.upstream.inputs)) < 40
