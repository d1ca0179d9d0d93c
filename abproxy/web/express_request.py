"""One call that came by the express way, from its head to its answer."""

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers

from abproxy.dialects.call import Call, Share
from abproxy.web.app import Door
from abproxy.web.caller import Caller
from abproxy.web.encoding import Encoder, Written, encode
from abproxy.web.plainhead import PlainHead
from abproxy.web.request_id import name_of

__all__ = ["ExpressRequest", "Seat"]


class Seat(Protocol):
    """What a request needs of the connection that it came on."""

    site: Any
    transport: Any

    def answer(self, request: "ExpressRequest", written: bytes) -> None:
        """Send the answer of *request*."""

    def forceAbortClient(self) -> None:  # noqa: N802
        """Hang up at once."""


@define(kw_only=True, eq=False)
class ExpressRequest:
    """A request that Klein has never seen; those who watch see no difference."""

    method: ClassVar[bytes] = b"POST"
    clientproto: ClassVar[bytes] = b"HTTP/1.1"
    is_relayed: ClassVar[bool] = False
    _log: ClassVar[Logger] = Logger()

    seat: Seat
    plain: PlainHead
    door: Door
    encoder: Encoder = field(repr=False)
    code: int = field(init=False, default=0)
    sentLength: int = field(init=False, default=0)  # noqa: N815  as Twisted has it
    route: str | None = field(init=False, default=None)
    began_at: float = field(init=False, default=0.0)
    trace: Any = field(init=False, default=None)

    closes: bool = field(init=False, default=False)
    """Whether the connection ends after the answer."""

    _name: bytes | None = field(init=False, default=None)
    _shares: Deferred[Any] | None = field(init=False, default=None, repr=False)
    _gone: bool = field(init=False, default=False)

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

    def submit(self, call: Call, caller: Caller) -> None:
        """Let *call* of *caller* travel; its answer goes to the seat."""
        try:
            shares: Deferred[Any] = self.door.submit(call, caller)
        except Exception:  # noqa: BLE001  whatever it is, the client hears of it
            self._answer(self._explain(Failure()))
            return
        self._shares = shares
        shares.addCallback(self._write, call).addErrback(self._explain)
        shares.addCallback(self._answer).addErrback(self._break_off)

    def leave(self) -> None:
        """Take the call's work along: the client has gone."""
        self._gone = True
        self.site.end(self, gone=True)
        if self._shares is not None:
            self._shares.cancel()

    def _write(self, shares: Sequence[Share], call: Call) -> Written:
        self.code = shares[0].reply.status
        return self.encoder.answer(call, shares, closes=self.closes)

    def _explain(self, failure: Failure) -> Written | None:
        if self._gone:
            return None
        reply = self.door.explain(failure, self)
        self.code = reply.status
        return encode(reply, closes=self.closes)

    def _answer(self, written: Written | None) -> None:
        if written is None or self._gone:
            return
        data, self.sentLength = written
        self.site.end(self, gone=False)
        self.seat.answer(self, data)

    def _break_off(self, failure: Failure) -> None:
        self._log.failure("An answer could not be given", failure)
        self.seat.forceAbortClient()
