"""
What can be observed of a running proxy: an observer, and the records it is given.

What is observed neither counts nor logs for an observer, and works the same
without one.
"""

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any

from msgspec import Struct
from twisted.logger import Logger
from twisted.web.http_headers import Headers

from abproxy.errors import ProxyError
from abproxy.http.headers import read_request_id
from abproxy.http.messages import Response

__all__ = [
    "BatchSent",
    "BlockedBy",
    "Cause",
    "FlushReason",
    "Observer",
    "Observers",
    "RequestInfo",
    "UpstreamState",
]

_log = Logger()

Cause = Response | ProxyError
"""Why a part got no rows: the upstream's reply, or an error of ours."""


class FlushReason(StrEnum):
    """Why a batch left when it did."""

    FULL = "full"
    """A cap was reached."""

    FREE = "free"
    """A slot was free, and the settings ask for no wait."""

    TIMER = "timer"
    """Its oldest part had waited `max_wait`, and a slot was free."""

    DRAIN = "drain"
    """The proxy is going to stop."""

    SUSPECT = "suspect"
    """It is one part, which may be what breaks the upstream."""


class BlockedBy(StrEnum):
    """What keeps a batch that is ready from leaving."""

    NOTHING = "nothing"
    """None is ready, or nothing keeps it."""

    SLOT = "slot"
    """As many as may be are in flight without being full."""

    BUDGET = "budget"
    """As many items as may be are in flight."""

    UPSTREAM = "upstream"
    """The upstream takes no work at the moment."""


class UpstreamState(StrEnum):
    """How the upstream is."""

    UNKNOWN = "unknown"
    """It was not asked yet."""

    UP = "up"
    FULL = "full"
    """It answers that it has no room (429, 503)."""

    UNREACHABLE = "unreachable"
    """It cannot be connected to."""

    FAILING = "failing"
    """Connections to it break, or its answers come too late."""

    @property
    def answers(self) -> bool:
        """Whether it gives answers, be they that it is full."""
        return self is UpstreamState.UP or self is UpstreamState.FULL


class BatchSent(Struct, frozen=True, kw_only=True):
    """One batch at the moment when it left."""

    route: str

    reason: FlushReason
    items: int
    size: int
    """Bytes of its items."""

    fill: float
    """How full it was, by the cap that it came closest to; 1 is full."""

    waits_s: Sequence[float]
    """How long each of its parts had waited."""

    in_flight: int
    """How many batches were in flight when it had left, itself among them."""

    lanes_left: int
    """How many lanes had parts waiting when it had left."""

    is_personal: bool
    """Whether it went with credentials of a client's own."""

    @property
    def parts(self) -> int:
        """How many calls, or parts of large ones, shared it."""
        return len(self.waits_s)


class RequestInfo(Struct, kw_only=True, eq=False):
    """
    One request of a client, whichever way it was read, and what became of it.

    Status and size are there when the request has ended.
    """

    method: bytes

    target: bytes
    """Path and query."""

    headers: Headers

    version: bytes = b"HTTP/1.1"

    client_host: str = ""
    """The client's IP address; empty where it has none, as on a Unix socket."""

    is_ours: bool = False
    """Whether a page of our own answers."""

    route: str | None = None
    """The batched route that answers; None where none does."""

    is_relayed: bool = False
    """Whether it was passed on alone."""

    began_at: float = 0.0
    """When it was read as far as it has to be, on the clock's scale."""

    status: int = 0

    size: int = 0
    """Bytes of the answer's body that were sent."""

    trace: Any = None
    """The span of the request, if it is traced."""

    _request_id: bytes | None = None

    @property
    def path(self) -> bytes:
        """The path alone."""
        return self.target.partition(b"?")[0]

    def request_id(self) -> bytes:
        """Return the id that the client sent, or one that is made for it."""
        if self._request_id is None:
            self._request_id = read_request_id(self.headers)
        return self._request_id

    def __repr__(self) -> str:
        """Show where it goes: a key or a text is never printed."""
        return f"RequestInfo({self.method!r}, {self.path!r})"


class Observer:
    """Base of all observers: a subclass overrides what it wants to hear of."""

    __slots__ = ()

    def request_began(self, request: RequestInfo) -> None:
        """Note that a request has to be answered."""

    def request_ended(self, request: RequestInfo, *, gone: bool) -> None:
        """Note that it was answered, or that its client has *gone* before."""

    def answered_with(self, error: ProxyError) -> None:
        """Note that a client gets an error of ours, and not an upstream's answer."""

    def batch_sent(self, batch: BatchSent) -> None:
        """Note that a batch has left."""

    def batch_done(self, batch: BatchSent, took_s: float | None) -> None:
        """Note that a batch is over: answered after *took_s*, or not at all."""

    def batch_split(self) -> None:
        """Note that a refused batch is sent again as halves, to find the bad call."""

    def batch_resent(self) -> None:
        """Note that a batch whose connection broke is sent again."""

    def batch_requeued(self, cause: Cause) -> None:
        """Note that the upstream took no work, so that a batch waits on."""

    def blocked(self, by: BlockedBy) -> None:
        """Note that something else than before keeps batches from leaving."""

    def upstream_request_ended(self, outcome: str, took_s: float) -> None:
        """Note what became of a request for a batch: a status or a reason."""


_EVENTS = {name: told for name, told in vars(Observer).items() if callable(told)}


class Observers(Observer):
    """
    Several observers as one.

    An error of one is logged, and costs neither an answer nor what others note.
    """

    def __init__(self, observers: Sequence[Observer]) -> None:
        for name, noting_nothing in _EVENTS.items():
            listening = [
                getattr(each, name)
                for each in observers
                if getattr(type(each), name) is not noting_nothing
            ]
            if listening:
                setattr(self, name, _tell_each(listening))


def _tell_each(listening: Sequence[Callable[..., None]]) -> Callable[..., None]:
    def tell(*args: Any, **kwargs: Any) -> None:
        for note in listening:
            try:
                note(*args, **kwargs)
            except Exception:  # noqa: BLE001  whatever it is, it must cost nothing else
                _log.failure("An observer failed")

    return tell
