"""
The observer of a running proxy, and the records that it is given.

The proxy reports events to observers, which count, log and trace them; it works
the same without one.
"""

from collections.abc import Callable, Hashable, Sequence
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
    "ServerState",
    "UpstreamState",
]

_log = Logger()

Cause = Response | ProxyError
"""The reason why a part got no rows: the upstream's reply, or an error of ours."""


class FlushReason(StrEnum):
    """The reason to send a batch."""

    FULL = "full"
    """A cap was reached."""

    FREE = "free"
    """A slot was free, and the settings ask for no wait."""

    TIMER = "timer"
    """Its oldest part had waited `max_wait`, and a slot was free."""

    DRAIN = "drain"
    """The proxy is stopping."""

    SUSPECT = "suspect"
    """It is one part from quarantine, which may crash the upstream."""


class BlockedBy(StrEnum):
    """The reason why a batch that is ready waits."""

    NOTHING = "nothing"
    """No batch is ready, or it is being sent."""

    SLOT = "slot"
    """As many batches that are not full are in flight as are allowed."""

    CALLERS = "callers"
    """Callers who were just answered are about to call again, and to share it."""

    BUDGET = "budget"
    """As many items are in flight as are allowed."""

    ACCOUNT = "account"
    """The account at the upstream may have no more at the moment."""

    UPSTREAM = "upstream"
    """The upstream is unreachable or full at the moment."""


class UpstreamState(StrEnum):
    """The state of the upstream."""

    UNKNOWN = "unknown"
    """No request was sent yet."""

    UP = "up"
    FULL = "full"
    """It answers with 429 or 503."""

    UNREACHABLE = "unreachable"
    """No connection to it is possible."""

    FAILING = "failing"
    """Connections to it break, or its answers come too late."""

    @property
    def answers(self) -> bool:
        """True if it answers, even if only that it is full."""
        return self is UpstreamState.UP or self is UpstreamState.FULL


class ServerState(StrEnum):
    """The share that one of several servers of a model gets, and why."""

    LEAVING = "leaving"
    """Nothing: it is to be forgotten when its last request is over."""

    OUT = "out"
    """Nothing: it does not answer, or only badly."""

    OTHER_MODEL = "other_model"
    """Nothing: it has another model than is served."""

    MODEL_UNKNOWN = "model_unknown"
    """Nothing: it has to say first which model it has."""

    DRAINED = "drained"
    """Nothing: the operator wants it so."""

    FULL = "full"
    """Nothing for a moment: it has just answered with 429 or 503."""

    GROWING = "growing"
    """A part of its share, as it is new or has been away."""

    UP = "up"
    """Its share."""


class BatchSent(Struct, frozen=True, kw_only=True):
    """One batch at the moment when it was sent."""

    route: str

    reason: FlushReason

    parts: int
    """The number of calls, or parts of large ones, that share it."""

    items: int
    size: int
    """Bytes of its items."""

    fill: float
    """The share of the cap that it came closest to; 1 is full."""

    waits_s: Sequence[float]
    """The waits of its parts."""

    in_flight: int
    """Batches in flight right after it was sent, itself included."""

    lanes_left: int
    """Lanes with waiting parts right after it was sent."""

    is_personal: bool
    """True if it was sent with a client's own credentials."""


class RequestInfo(Struct, kw_only=True, eq=False):
    """
    One request of a client, from either path, and its outcome.

    Status and size are set when the request has ended.
    """

    method: bytes

    target: bytes
    """Path and query."""

    headers: Headers

    version: bytes = b"HTTP/1.1"

    client_host: str = ""
    """The client's IP address; empty where it has none, as on a Unix socket."""

    connection: Hashable = 0
    """
    What tells its connection from others that are open.

    The address, if a proxy told it: the proxy's connections are for all its clients.
    """

    is_ours: bool = False
    """True if a page of our own answers."""

    model: str = ""
    """The name of the model that it is for; empty if there is one only."""

    below: bytes = b""
    """What its path has begun with, where that names the model."""

    route: str | None = None
    """The batched route that answers; None if there is none."""

    is_relayed: bool = False
    """True if it was passed on alone."""

    began_at: float = 0.0
    """The clock's time when it had been read as far as needed."""

    status: int = 0

    size: int = 0
    """Bytes of the answer's body that were sent."""

    elsewhere_s: float = 0.0
    """How long its call waited and the upstream took; 0 if that is not known."""

    trace: Any = None
    """The span of the request, if it is traced."""

    _request_id: bytes | None = None

    @property
    def path(self) -> bytes:
        """Return the path alone."""
        return self.target.partition(b"?")[0]

    def request_id(self) -> bytes:
        """Return the id that the client sent, or a generated one."""
        if self._request_id is None:
            self._request_id = read_request_id(self.headers)
        return self._request_id

    def __repr__(self) -> str:
        """Return method and path only: keys and texts are never printed."""
        return f"RequestInfo({self.method!r}, {self.path!r})"


class Observer:
    """Base of all observers: a subclass overrides the events that it uses."""

    __slots__ = ()

    def request_began(self, request: RequestInfo) -> None:
        """Note that a request has to be answered."""

    def request_ended(self, request: RequestInfo, *, gone: bool) -> None:
        """Note that it was answered, or that its client was *gone* before."""

    def answered_with(self, error: ProxyError, model: str = "") -> None:
        """
        Note that a client gets an error of ours, and not an upstream's answer.

        Args:
            error: which one.
            model: the name of the model it asked for; empty for the only one, or none.
        """

    def connection_cut(self, reason: str) -> None:
        """Note that a connection was cut for *reason*: a `slow_reader`."""

    def batch_sent(self, batch: BatchSent) -> None:
        """Note that a batch was sent."""

    def batch_done(self, batch: BatchSent, took_s: float | None) -> None:
        """Note that a batch has ended: answered after *took_s*, or not at all."""

    def batch_split(self) -> None:
        """Note that a refused batch is sent again as halves, to find the bad call."""

    def batch_resent(self) -> None:
        """Note that a batch whose connection broke is sent again."""

    def extra_request(self, reason: str) -> None:
        """
        Note a request that is only due to another one of the same inputs.

        Args:
            reason: `probe`, `piece` or `resend`, as that one failed; `elsewhere`, as
                a server did not take it; `hedge`, as one takes long.
        """

    def rows_differed(self) -> None:
        """Note that the rows of a call are of two models, and not put together."""

    def batch_requeued(self, cause: Cause) -> None:
        """Note that a batch was queued again because of *cause*."""

    def blocked(self, by: BlockedBy) -> None:
        """Note that batches now wait for something else than before."""

    def kept_apart(self, names: Sequence[str]) -> None:
        """Note the header lines, or as `body.NAME` members, in which calls differ."""

    def went_alone(self, name: str) -> None:
        """Note the line or member for which a call is neither shared nor split."""

    def reused(
        self, source: str, items: int, trace: Any = None, others: Sequence[Any] = ()
    ) -> None:
        """
        Note *items* that are not computed again, and the *source* of their rows.

        Args:
            source: `in_flight`, `cache` or `shared_cache`.
            items: how many.
            trace: the span of the call that they are for, if it is traced.
            others: the spans of the calls that compute them.
        """

    def sampled(self, *, is_repeated: bool) -> None:
        """Note one item out of many, and whether it was asked for before."""

    def upstream_request_ended(self, outcome: str, took_s: float) -> None:
        """Note the outcome of a request for a batch: a status or a reason."""


_EVENTS = {name: told for name, told in vars(Observer).items() if callable(told)}


class Observers(Observer):
    """
    Several observers as one.

    An error of one is logged, and affects neither answers nor other observers.
    """

    def __init__(self, observers: Sequence[Observer]) -> None:
        noting_nothing = Observer.request_ended
        self._at_end = [
            each.request_ended
            for each in observers
            if type(each).request_ended is not noting_nothing
        ]
        for name, noting_nothing in _EVENTS.items():
            listening = [
                getattr(each, name)
                for each in observers
                if getattr(type(each), name) is not noting_nothing
            ]
            if listening and name != "request_ended":
                setattr(self, name, _tell_each(listening))

    def request_ended(self, request: RequestInfo, *, gone: bool) -> None:
        """Pass it on to all; written out, as this is done for each call."""
        for note in self._at_end:
            try:
                note(request, gone=gone)
            except Exception:  # noqa: BLE001  it must not affect a call
                _log.failure("An observer failed")


def _tell_each(listening: Sequence[Callable[..., None]]) -> Callable[..., None]:
    def tell(*args: Any, **kwargs: Any) -> None:
        for note in listening:
            try:
                note(*args, **kwargs)
            except Exception:  # noqa: BLE001  it must not affect a call
                _log.failure("An observer failed")

    return tell
