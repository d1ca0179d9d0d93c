"""A gateway in front of a server that restarts makes an outage of it, not a refusal."""

import pytest

from bench.breakable import Traits
from support.network import Network, network

TOGETHER = {"max_wait_ms": 100.0, "max_batch_calls": 8}


def _texts(here: Network, *texts: str) -> list[tuple[int, bytes]]:
    return here.settle(*[here.post({"inputs": [text]}) for text in texts])


@pytest.mark.parametrize("client", ["fast", "treq"])
@pytest.mark.parametrize("count", [1, 8])
@pytest.mark.parametrize("ms", [0, 300])
@pytest.mark.parametrize("status", [502, 504])
def test_while_the_server_restarts_calls_wait(
    status: int, ms: float, count: int, client: str
) -> None:
    """Alone or together, as they wait for a server that says 503."""
    traits = Traits(gateway=status, gateway_ms=ms)
    with network(traits, client=client, **TOGETHER) as here:
        texts = [f"text {at}" for at in range(count)]
        _texts(here, *texts)
        here.upstream.die(2.0)

        got = _texts(here, *texts)

        assert got == [here.alone({"inputs": [text]}) for text in texts]


@pytest.mark.parametrize("status", [502, 504])
def test_what_was_in_flight_when_the_server_died_is_asked_again(status: int) -> None:
    """The gateway's words for it reach nobody."""
    with network(Traits(gateway=status, ms=100), **TOGETHER) as here:
        texts = [f"text {at}" for at in range(8)]
        asked = [here.post({"inputs": [text]}) for text in texts]
        here.pass_(0.05)
        here.upstream.die(2.0)

        got = here.settle(*asked)

        assert got == [here.alone({"inputs": [text]}) for text in texts]


@pytest.mark.parametrize("restart_s", [0.5, 2.0])
@pytest.mark.parametrize("place", [0, 3, 7])
def test_a_text_that_kills_the_server_behind_a_gateway_is_one_callers(
    place: int, restart_s: float
) -> None:
    """Its sender gets an error, the others wait for their rows."""
    traits = Traits(gateway=502, restart_s=restart_s)
    with network(traits, **TOGETHER) as here:
        _texts(here, "something good")
        texts = [f"text {at}" for at in range(8)]
        texts[place] = "DEADLY"

        got = _texts(here, *texts)

        assert got.pop(place)[0] >= 500
        texts.pop(place)
        assert got == [here.alone({"inputs": [text]}) for text in texts]


def test_a_gateway_that_never_recovers_is_an_error_in_the_end() -> None:
    """After CONNECT_PATIENCE each caller hears so, and the upstream has had rest."""
    with network(Traits(gateway=502), connect_patience_s=3, **TOGETHER) as here:
        here.upstream.die(10_000)
        began_at = here.reactor.seconds()

        got = _texts(here, *[f"text {at}" for at in range(8)])

        assert {status for status, _ in got} <= {429, 502}
        assert here.reactor.seconds() - began_at <= 3 + 1.5
        assert len(here.upstream.requests) <= 12
        here.upstream._cancel_timer()
