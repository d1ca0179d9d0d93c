"""One call that came by the express way, from its head to its answer."""

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

from msgspec import Struct
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers

from abproxy.dialects.call import Call, ParsedBody, PartResult
from abproxy.web.app import ProxyApp
from abproxy.web.auth import Caller
from abproxy.web.calls import CallHead
from abproxy.web.plainhead import PlainHead
from abproxy.web.replies import Encoder, Written, encode
from abproxy.web.request_id import name_of

__all__ = ["FastRequest", "Seat"]


class Seat(Protocol):
    """What a request needs of the connection that it came on."""

    site: Any
    transport: Any

    def answer(self, request: "FastRequest", written: bytes) -> None:
        """Send the answer of *request*."""


class FastRequest(Struct, kw_only=True, eq=False):
    """A request that Klein has never seen; those who watch see no difference."""

    method: ClassVar[bytes] = b"POST"
    clientproto: ClassVar[bytes] = b"HTTP/1.1"
    is_relayed: ClassVar[bool] = False

    seat: Seat
    plain: PlainHead
    door: ProxyApp
    encoder: Encoder
    route: str | None = None
    code: int = 0
    sentLength: int = 0  # noqa: N815  as Twisted has it
    began_at: float = 0.0
    trace: Any = None

    closes: bool = False
    """Whether the connection ends after the answer."""

    _name: bytes | None = None
    _results: Deferred[Any] | None = None
    _gone: bool = False

    @property
    def site(self) -> Any:
        """The door through which it came."""
        return self.seat.site

    @property
    def uri(self) -> bytes:
        """Path and query."""
        return self.plain.target

    @property
    def path(self) -> bytes:
        """The path alone."""
        return self.plain.target.partition(b"?")[0]

    @property
    def requestHeaders(self) -> Headers:  # noqa: N802
        """The header lines."""
        return self.plain.headers

    def name(self) -> bytes:
        """Say how client and log know the request."""
        if self._name is None:
            self._name = name_of(self)
        return self._name

    def getClientAddress(self) -> Any:  # noqa: N802
        """Say where it came from."""
        return self.seat.transport.getPeer()

    def end_connection(self) -> None:
        """Let this answer be the last on its connection."""
        self.closes = True

    def submit(
        self, envelope: CallHead, parsed: ParsedBody, body: bytes, caller: Caller
    ) -> None:
        """Let a call of *caller* travel; its answer goes to the seat."""
        call = envelope.call(
            parsed, body, client=caller.client, trace=self.trace, name=self.name
        )
        try:
            results: Deferred[Any] = self.door.submit(call, caller)
        except Exception:  # noqa: BLE001  whatever it is, the client hears of it
            self._over(Failure(), call)
            return
        self._results = results
        # One callback instead of several: this is done for each call.
        results.addBoth(self._over, call)

    def leave(self) -> None:
        """Take the call's work along: the client has gone."""
        self._gone = True
        self.site.end(self, gone=True)
        if self._results is not None:
            self._results.cancel()

    def _over(self, outcome: Sequence[PartResult] | Failure, call: Call) -> None:
        if self._gone:
            return
        data, self.sentLength = self._written(outcome, call)
        self.site.end(self, gone=False)
        self.seat.answer(self, data)

    def _written(self, outcome: Sequence[PartResult] | Failure, call: Call) -> Written:
        if isinstance(outcome, Failure):
            return self._explained(outcome)
        try:
            self.code = outcome[0].response.status
            return self.encoder.answer(call, outcome, closes=self.closes)
        except Exception:  # noqa: BLE001  whatever it is, the client hears of it
            return self._explained(Failure())

    def _explained(self, failure: Failure) -> Written:
        reply = self.door.explain(failure, self)
        self.code = reply.status
        return encode(reply, closes=self.closes)
