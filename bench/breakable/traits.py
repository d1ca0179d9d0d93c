"""What the server is like while nothing is broken."""

from typing import Any

import attrs
from attrs import frozen
from attrs.validators import ge, in_

from bench.breakable.shapes import SHAPES

__all__ = ["MODEL", "Traits"]

MODEL = "breakable"
"""The model whose rows depend on the input alone."""


def _trait(default: Any, about: str, validator: Any = None) -> Any:
    return attrs.field(default=default, validator=validator, metadata={"about": about})


@frozen(kw_only=True)
class Traits:
    """Limits and speed; a restart may bring others."""

    permits: int = _trait(
        512, "inputs of all requests at once; more are refused with 429", ge(1)
    )
    max_batch: int = _trait(
        32, "inputs in one request; more are refused with 422", ge(1)
    )
    dimensions: int = _trait(4, "numbers in a row", ge(1))
    ms: float = _trait(0.0, "how long a request takes, however small", ge(0))
    ms_per_input: float = _trait(
        0.0, "how much longer it takes for each of its inputs", ge(0)
    )
    workers: int = _trait(
        1, "requests computed at the same time; 0: none until this is changed", ge(0)
    )
    keep_alive_ms: float = _trait(
        0.0, "how long a connection may be idle after an answer; 0: for ever", ge(0)
    )
    chunked: bool = _trait(False, "send answers in chunks, without a length")
    bad_text: str = _trait("BAD", "a request with this in an input is refused with 422")
    deadly_text: str = _trait(
        "DEADLY", "a request with this in an input ends the server"
    )
    restart_s: float = _trait(
        0.5, "how long it takes until it is started again after such an end", ge(0)
    )
    openai: bool = _trait(False, "be no TEI: no /info, but a list of models")
    gateway: int = _trait(
        0,
        "what a gateway in front answers while the server is away, 502 or 504; "
        "0: there is no gateway, and the port is closed",
        ge(0),
    )
    gateway_ms: float = _trait(0.0, "how long that gateway takes to answer", ge(0))
    deadline_ms: float = _trait(
        0.0, "after how long a gateway answers with 504; 0: never", ge(0)
    )
    shape: str = _trait(
        "", f"form of the answers: {', '.join(filter(None, SHAPES))}", in_(SHAPES)
    )
    nan_text: str = _trait("", "an input with this in it has the word NaN in its row")
    model: str = _trait(
        MODEL, "which model it has; the rows of another one are other rows"
    )
    sha: str = _trait("", "which version of the model it has; its rows are others, too")
    detailed_usage: bool = _trait(
        False, "have a cost and cached tokens in OpenAI answers"
    )

    quotes: bool = _trait(False, "quote the request in each answer that is no rows")

    def seconds_for(self, inputs: int) -> float:
        """Return how long a worker needs for a request of so many *inputs*."""
        return (self.ms + self.ms_per_input * inputs) / 1000
