"""What the server is like while nothing is broken."""

from attrs import field, frozen
from attrs.validators import ge, in_

from bench.breakable.shapes import SHAPES

__all__ = ["Traits"]


@frozen(kw_only=True)
class Traits:
    """Limits and speed; a restart may bring others."""

    permits: int = field(default=512, validator=ge(1))
    """Inputs of all requests at once; what is over is refused with 429."""

    max_batch: int = field(default=32, validator=ge(1))
    """Inputs in one request; what is over is refused with 422."""

    dimensions: int = field(default=4, validator=ge(1))
    """Numbers in a row."""

    ms: float = field(default=0.0, validator=ge(0))
    """How long a request takes, however small."""

    ms_per_input: float = field(default=0.0, validator=ge(0))
    """How much longer it takes for each of its inputs."""

    workers: int = field(default=1, validator=ge(0))
    """Requests that are computed at the same time; 0: none until this is changed."""

    keep_alive_ms: float = field(default=0.0, validator=ge(0))
    """How long a connection may be idle after an answer; 0: as long as it likes."""

    chunked: bool = False
    """Whether answers come in chunks, without a length."""

    bad_text: str = "BAD"
    """An input with this in it is refused with 422, and its request with it."""

    deadly_text: str = "DEADLY"
    """An input with this in it kills the server, as some do real ones."""

    restart_s: float = field(default=0.5, validator=ge(0))
    """How long a supervisor takes to start it again after a death."""

    openai: bool = False
    """Whether it is no TEI: no `/info`, but a list of models."""

    gateway: int = field(default=0, validator=ge(0))
    """
    What a gateway in front of it answers (502, 504) while it is away; 0: there
    is no gateway, and the port is closed.
    """

    gateway_ms: float = field(default=0.0, validator=ge(0))
    """How long that gateway takes to say so."""

    deadline_ms: float = field(default=0.0, validator=ge(0))
    """After how long a gateway gives up with 504; 0: never."""

    shape: str = field(default="", validator=in_(SHAPES))
    """The form of its answers; see `shapes`."""

    nan_text: str = ""
    """An input with this in it has the bare word NaN in its row; "": none has."""

    detailed_usage: bool = False
    """Whether OpenAI answers tell a cost and cached tokens as well."""

    def seconds_for(self, inputs: int) -> float:
        """Say how long a worker needs for a request of so many *inputs*."""
        return (self.ms + self.ms_per_input * inputs) / 1000
