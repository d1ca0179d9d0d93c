"""
The door: which request takes which road.

Batched routes return a Deferred that fires with the call's own part of a
batch.  Everything else, and whatever a batched route does not understand, is
relayed.
"""

from collections.abc import Callable
from typing import Any, ClassVar, NoReturn, TypeVar, cast

from attrs import define, field
from klein import Klein
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest

from abproxy.batching.collector import BatchCollector
from abproxy.dialects.answer import error_reply, write_answer
from abproxy.dialects.call import Call, Dialect, ParsedBody, PartResult
from abproxy.dialects.routes import ALIASES, ROUTES, dialect_of, may_be_batched
from abproxy.dialects.tei import EMBED
from abproxy.errors import DeadlinePassed, InternalError, MethodNotAllowed, ProxyError
from abproxy.http.messages import Response
from abproxy.web.auth import ApiKeys, Caller, Clients
from abproxy.web.calls import CallHead, CallReader
from abproxy.web.observing import RequestInfo, RequestObserver, Unwatched
from abproxy.web.rate_limit import RateLimiter
from abproxy.web.relay import Relay
from abproxy.web.replies import write_reply
from abproxy.web.request import ProxyRequest
from abproxy.web.request_id import named

__all__ = ["ProxyApp", "refusal"]

READS = frozenset({b"GET", b"HEAD", b"OPTIONS"})
"""Methods that ask for no work: a probe is never told to slow down."""

_Route = TypeVar("_Route", bound=Callable[..., Any])


def on_batched_routes(app: Klein) -> Callable[[_Route], _Route]:
    """Decorate the one function that answers all batched routes."""

    def decorate(route: _Route) -> _Route:
        for path in (*ROUTES, *ALIASES):
            route = app.route(path.decode(), methods=["POST"])(route)
        return route

    return decorate


def _anew(door: "ProxyApp", _attribute: object, value: Any) -> Any:
    door.renew()
    return value


@define(kw_only=True, eq=False)
class ProxyApp:
    """All routes, as a Klein app."""

    keys: ApiKeys = field(on_setattr=_anew)
    callers: Clients = field(on_setattr=_anew)
    rates: RateLimiter
    receiving: CallReader = field(on_setattr=_anew)
    collector: BatchCollector
    relay: Relay
    task: Callable[[], str | None] = field(on_setattr=_anew)
    """What the upstream's model does, if that is known."""

    observer: RequestObserver = field(factory=Unwatched, repr=False)

    rules: object = field(init=False, factory=object, repr=False)
    """Another one as soon as the same head may be understood in another way."""

    app: ClassVar[Klein] = Klein()
    _log: ClassVar[Logger] = Logger()

    @on_batched_routes(app)
    async def batched(self, request: ProxyRequest) -> None:
        """Answer with the call's own part of a batch."""
        self.keys.check(request)
        caller = self.callers.who(request)
        call = self._understand(request, caller)
        if call is None:
            await self._relay(request, caller)
            return
        request.route = call.lane.dialect.path.decode()
        write_reply(request, write_answer(call, await self.submit(call, caller)))

    def renew(self) -> None:
        """Something has changed by which heads are understood."""
        self.rules = object()

    def open(self, request: RequestInfo, caller: Caller) -> CallHead | None:
        """Understand the head of *request* of *caller* as that of a call, or not."""
        # Klein takes `//embed` for `/embed` and `post` for `POST`; the request
        # itself says better.
        if not may_be_batched(request.method, request.uri):
            return None
        dialect = dialect_of(request.uri, self.task())
        if dialect is None:
            return None
        return self.receiving.open(request, dialect, caller)

    def read(self, envelope: CallHead, body: bytes) -> ParsedBody | None:
        """Understand the *body* of a call, or not; then it is to be relayed."""
        reading = envelope.dialect.read(body)
        takes = self.collector.takes
        return reading if reading and takes(reading.items.spelled) else None

    def submit(self, call: Call, caller: Caller) -> Deferred[list[PartResult]]:
        """
        Let *call* of *caller* travel; fires with the shares of its parts.

        Raises:
            Overloaded: too much is waiting, or came from this caller.
        """
        self.rates.check(caller.client)
        shares = self.collector.submit(call)
        self.rates.take(caller.client, len(call.items.spelled))
        if caller.deadline_s is not None:
            shares.addTimeout(caller.deadline_s, self.collector.clock, _too_late)
        return shares

    def explain(self, failure: Failure, request: RequestInfo) -> Response:
        """Say what went wrong, in the words of the route."""
        error = failure.value
        if not isinstance(error, ProxyError):
            name = request.name().decode()
            self._log.failure("Request {request_id} failed", failure, request_id=name)
            error = InternalError("a bug in abproxy; its log says more")
        self.observer.answered_with(error)
        reply = error_reply(error, _language(request.uri))
        return named(reply, request.name())

    def _understand(self, request: ProxyRequest, caller: Caller) -> Call | None:
        envelope = self.open(request, caller)
        if envelope is None:
            return None
        body = request.content.read()
        reading = self.read(envelope, body)
        if reading is None:
            return None
        return envelope.call(
            reading,
            body,
            client=caller.client,
            trace=request.trace,
            name=request.name,
        )

    @app.route("/", branch=True)
    async def relayed(self, request: ProxyRequest) -> None:
        """Pass the request on alone and unchanged, unless it is for us."""
        ours = request.site.operations
        if ours.owns(request):
            write_reply(request, await ours.answer(request, self.keys))
            return
        self.keys.check(request)
        await self._relay(request, self.callers.who(request))

    async def _relay(self, request: ProxyRequest, caller: Caller) -> None:
        if request.method.upper() == b"TRACE":
            raise MethodNotAllowed("TRACE is not passed on")
        if request.method not in READS:
            self.rates.check(caller.client)
            self.rates.take(caller.client, 1)
        request.is_relayed = True
        await self.relay.pass_on(request, is_known=self.keys.know(request))

    @app.handle_errors(Exception)
    def failed(self, request: IRequest, failure: Failure) -> None:
        """Say what went wrong, unless part of another answer is out."""
        request = cast("ProxyRequest", request)
        reply = self.explain(failure, request)
        if request.startedWriting:
            request.channel.forceAbortClient()
        else:
            write_reply(request, reply)


def refusal(error: ProxyError, target: bytes) -> Response:
    """Write *error* for a *target*, before there is a request to answer."""
    return error_reply(error, _language(target))


def _too_late(_result: object, deadline_s: float) -> NoReturn:
    raise DeadlinePassed(f"your deadline of {deadline_s * 1000:g} ms has passed")


def _language(target: bytes) -> Dialect:
    return dialect_of(target, None) or EMBED
