"""What an upstream refuses of one model, route or tenant is no trouble of others."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from attrs import define, field

from bench.breakable import Traits
from support.network import Asked, Network, network

TRAITS = Traits(ms=10, workers=64)
SAID = '{"error":"model nope is not loaded; you sent: ATTACKER TEXT"}'

Ask = Callable[[Network, int], Asked]


def _good(here: Network, at: int) -> Asked:
    key = ("Authorization", f"Bearer good{at}")
    return here.post({"inputs": ["mine"]}, key)


def _good_model(here: Network, at: int) -> Asked:
    key = ("Authorization", f"Bearer good{at}")
    body = {"input": ["mine"], "model": "good"}
    return here.post(body, key, path="/v1/embeddings")


def _bad(here: Network, at: int) -> Asked:
    key = ("Authorization", f"Bearer bad{at}")
    body = {"input": ["ATTACKER TEXT"], "model": "nope"}
    return here.post(body, key, path="/v1/embeddings")


@define(eq=False)
class Loop:
    """A client that asks again as soon as it is answered."""

    ask: Ask
    number: int
    asked: Asked | None = None
    told: list[tuple[int, bytes]] = field(factory=list)

    def go_on(self, here: Network) -> None:
        """Ask, if nothing is asked."""
        if self.asked is not None and self.asked.is_answered:
            self.told.append(self.asked.told)
            self.asked = None
        if self.asked is None:
            self.asked = self.ask(here, self.number)


def _run(here: Network, loops: Sequence[Loop], seconds: float) -> None:
    for _ in range(round(seconds / 0.005)):
        for loop in loops:
            loop.go_on(here)
        here.pass_(0.005)


def _good_sends(here: Network) -> int:
    return sum(b"ATTACKER" not in each.body for each in here.upstream.requests)


def _alone(ask: Ask, callers: int, seconds: float, **about: Any) -> int:
    with network(TRAITS, **about) as here:
        _run(here, [Loop(ask, at) for at in range(callers)], seconds)
        return _good_sends(here)


@pytest.mark.parametrize(
    ("status", "attackers", "ask", "callers", "about"),
    [
        (503, 2, _good, 4, {}),
        (503, 2, _good_model, 8, {}),
        (502, 2, _good_model, 8, {}),
        (504, 1, _good, 4, {}),
        (429, 1, _good, 4, {"upstream_key": "ours"}),
        (429, 2, _good_model, 8, {"upstream_key": "ours"}),
    ],
)
def test_a_model_that_is_refused_costs_the_others_nothing(
    status: int, attackers: int, ask: Ask, callers: int, about: dict[str, Any]
) -> None:
    """Nine of ten requests at least are sent as without it, and no word gets out."""
    seconds = 6.0
    with network(TRAITS, **about) as here:
        here.upstream.refuse(text="ATTACKER", status=status, body=SAID)
        good = [Loop(ask, at) for at in range(callers)]
        bad = [Loop(_bad, at) for at in range(attackers)]
        _run(here, [*good, *bad], seconds)

        assert {told for loop in good for told, _ in loop.told} == {200}
        assert {told for loop in bad for told, _ in loop.told} <= {429, status, 502}
        sends = _good_sends(here)
    assert sends >= 0.9 * _alone(ask, callers, seconds, **about)


FIRST = 8
"""So many batches that are not full may leave before anything is learned."""


@pytest.mark.parametrize("status", [429, 503])
def test_when_all_are_refused_one_batch_at_a_time_goes_ahead(status: int) -> None:
    """However many callers there are, each with a lane of its own."""
    with network(TRAITS, upstream_key="ours") as here:
        here.upstream.refuse(status=status, body=SAID)
        asked = [_good(here, at) for at in range(20)]
        here.pass_(4.0)

        # Those that were in flight at first, and then one after each pause.
        assert len(here.upstream.requests) <= FIRST + 8
        here.upstream.mend()
        got = here.settle(*asked, within_s=3)

    assert [told for told, _ in got] == [200] * 20
