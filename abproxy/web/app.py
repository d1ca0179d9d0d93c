"""
The proxy as a Klein app: what becomes of a request.

Batched routes return a Deferred that fires with the call's own part of a
batch.  Everything else, and whatever a batched route does not understand, is
relayed.
"""

from collections.abc import Sequence
from functools import partial
from typing import ClassVar, NoReturn, TypeVar, cast

from attrs import define, field, frozen
from klein import Klein
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest

from abproxy.dialects.call import Call, PartResult
from abproxy.dialects.reply import write_answer
from abproxy.errors import (
    InternalError,
    MethodNotAllowed,
    ProxyError,
    TooManyWithoutKey,
)
from abproxy.events import Observer, RequestInfo
from abproxy.http.messages import Response
from abproxy.web.auth import ApiKeys, Caller, Clients
from abproxy.web.models import Models, Served
from abproxy.web.rate_limit import RateLimiter, SharedRate, rate_exceeded
from abproxy.web.replies import error_response, write_reply
from abproxy.web.request import ProxyRequest, unless_gone

__all__ = ["Policy", "ProxyApp"]

READS = frozenset({b"GET", b"HEAD"})
"""Methods that ask for no work: a probe is never told to slow down."""

MOST_STRANGERS = 32
"""Requests without a key that may be upstream at once: each has a connection there."""

_T = TypeVar("_T")


@frozen(kw_only=True, eq=False)
class Policy:
    """
    The rules by which requests are accepted and their heads read.

    It is replaced as a whole, by a reload or when an upstream has another model:
    what was concluded from the one in force holds as long as it is the same object.
    """

    keys: ApiKeys
    clients: Clients
    models: Models

    inputs_per_s: float | None = None
    """The rate limit of each client; None for no limit at all."""


@define(kw_only=True, eq=False)
class ProxyApp:
    """The routes of the proxy."""

    policy: Policy
    clock: IReactorTime = field(repr=False)
    rate_limiter: RateLimiter
    shared_rate: SharedRate | None = field(default=None, repr=False)
    """Counts what clients send to this proxy and to others."""

    observer: Observer = field(factory=Observer, repr=False)
    _strangers: int = field(init=False, default=0)
    """Requests without a key that are upstream."""

    klein: ClassVar[Klein] = Klein()
    _log: ClassVar[Logger] = Logger()

    @klein.route("/", branch=True)
    def answer(self, request: ProxyRequest) -> Deferred[None]:
        """
        Answer with a page of ours, or with the call's own part of a batch.

        Everything else is relayed, alone and unchanged.
        """
        info = request.info
        if info.is_ours:
            return Deferred.fromCoroutine(self._show(request))
        self.check(info)
        listed = self.policy.models.describe(info.method, info.target)
        if listed is not None:
            write_reply(request, listed)
            return succeed(None)
        served, body = self._choose(request)
        caller = self.policy.clients.identify(info)
        call = _read_call(request, served, body, caller)
        if call is None:
            return Deferred.fromCoroutine(self._relay(request, served, caller))
        info.route = call.lane_key.dialect.path.decode()
        # No coroutine: the traceback of a failure would hold its frame, and so the
        # call with its body, until the garbage collector comes.
        return self.submit(served, call, caller, request.head_at).addCallbacks(
            lambda results: _answer(request, call, results),
            lambda failure: _unless_gone(failure, request),
        )

    def check(self, request: RequestInfo) -> None:
        """
        Raise if *request* is refused whatever its body is.

        Raises:
            Unauthorized: it needs a key.
            MethodNotAllowed: its method is not passed on.
        """
        if request.is_ours:
            return
        self.policy.keys.require(request)
        if request.method.upper() == b"TRACE":
            raise MethodNotAllowed("TRACE is not passed on")

    def may_be_batched(self, method: bytes, target: bytes) -> bool:
        """Return whether a request must be read whole to know what it is."""
        return self.policy.models.must_be_read(method, target)

    def submit(
        self, served: Served, call: Call, caller: Caller, head_at: float | None = None
    ) -> Deferred[list[PartResult]]:
        """
        Submit *call* of *caller*; fires with the results of its parts.

        Args:
            served: the model that is to compute it.
            call: what is to be sent.
            caller: who sent it.
            head_at: when its head had arrived, if that was not just now.

        Raises:
            DeadlinePassed: its body has taken too long.
            RateExceeded: the caller has sent too much lately.
            Overloaded: too much is waiting, or came from this caller.
            CallTooLarge: the call never is within a limit.
        """
        if head_at is not None:
            self._check_deadline(caller, head_at)
        rate = self.policy.inputs_per_s
        if rate is not None:
            self.rate_limiter.check(caller.client, len(call.items.raw), rate)
            results = self._compute_limited(served, call, rate)
        else:
            results = served.compute(call)
        if caller.deadline_s is not None:
            self._bound(results, caller, head_at)
        return results

    def _compute_limited(
        self, served: Served, call: Call, rate: float
    ) -> Deferred[list[PartResult]]:
        """Compute *call* once all proxies that count together have room for it."""
        client, inputs = call.client, len(call.items.raw)
        if self.shared_rate is None:
            results = served.compute(call)
            self.rate_limiter.take(client, inputs, rate)
            return results

        def compute(wait_s: float) -> Deferred[list[PartResult]]:
            if wait_s:
                self.rate_limiter.give_back(client, inputs, rate)
                raise rate_exceeded(rate, wait_s)
            return served.compute(call)

        # Before the others have said so: what comes meanwhile finds it taken.
        self.rate_limiter.take(client, inputs, rate)
        return self.shared_rate(client, inputs, rate).addCallback(compute)

    def _check_deadline(self, caller: Caller, head_at: float) -> None:
        taken_s = self.clock.seconds() - head_at
        if caller.deadline_s is not None and taken_s >= caller.deadline_s:
            raise caller.too_late()

    def _bound(
        self, answer: Deferred[_T], caller: Caller, head_at: float | None
    ) -> Deferred[_T]:
        """Cancel *answer* when the deadline of *caller* has passed."""
        if caller.deadline_s is None:
            return answer

        def too_late(_result: object, _timeout_s: float) -> NoReturn:
            raise caller.too_late()

        clock = self.clock
        now = clock.seconds()
        left_s = caller.deadline_s - (now - (now if head_at is None else head_at))
        return answer.addTimeout(max(left_s, 0.0), clock, too_late)

    def explain(self, failure: Failure, request: RequestInfo) -> Response:
        """Return the reply that says what went wrong, as errors of its route look."""
        error = failure.value
        if not isinstance(error, ProxyError):
            request_id = request.request_id().decode()
            self._log.failure(
                "Request {request_id} failed", failure, request_id=request_id
            )
            error = InternalError("a bug in abproxy; its log says more")
        self.observer.answered_with(error, request.model)
        return error_response(error, request.target, request.request_id())

    def _choose(self, request: ProxyRequest) -> tuple[Served, bytes]:
        """
        Return the model that *request* is for, and its body if that was read.

        Raises:
            ModelNotFound: it names one that there is not.
        """
        models = self.policy.models
        body = b"" if request.streams else request.content.getvalue()  # no copy
        if not models.named:
            return models.default, body
        served, prefix, target = models.by_path(request.uri)
        request.lead(prefix, target)
        if body:
            served, renamed = models.by_body(body, served)
            if renamed is not body:
                body = renamed
                request.replace_body(body)
        served = served or models.default
        request.info.model = served.name
        return served, body

    async def _show(self, request: ProxyRequest) -> None:
        """Answer with a page of ours."""
        pages = request.site.operations
        with unless_gone(request):
            page = await pages.answer(request.info, self.policy.keys)
        write_reply(request, page)

    async def _relay(
        self, request: ProxyRequest, served: Served, caller: Caller
    ) -> None:
        policy = self.policy
        if policy.inputs_per_s is not None and request.method not in READS:
            self.rate_limiter.check(caller.client, 1, policy.inputs_per_s)
            self.rate_limiter.take(caller.client, 1, policy.inputs_per_s)
        self._check_deadline(caller, request.head_at)
        request.info.is_relayed = True
        bound = partial(self._bound, caller=caller, head_at=request.head_at)
        credentials = served.reader.credentials
        if policy.keys.recognize(request.info):
            with unless_gone(request):
                await served.relay.forward(request, credentials, bound)
            return
        if self._strangers >= MOST_STRANGERS:
            raise TooManyWithoutKey("too many requests without a key at once")
        self._strangers += 1
        try:
            with unless_gone(request):
                await served.relay.forward(request, credentials, bound, shows_key=False)
        finally:
            self._strangers -= 1

    @klein.handle_errors(Exception)
    def failed(self, request: IRequest, failure: Failure) -> None:
        """Reply with what went wrong, unless part of another answer is sent already."""
        request = cast("ProxyRequest", request)
        reply = self.explain(failure, request.info)
        if request.startedWriting:
            request.channel.forceAbortClient()
        else:
            write_reply(request, reply)


def _read_call(
    request: ProxyRequest, served: Served, body: bytes, caller: Caller
) -> Call | None:
    info = request.info
    head = served.reader.open(info, caller)
    if head is None:
        return None
    parsed = head.read(body)
    if parsed is None:
        return None
    return head.call(parsed, body, info, caller)


def _answer(request: ProxyRequest, call: Call, results: Sequence[PartResult]) -> None:
    first = results[0]
    if first.upstream_s and len(results) == 1:
        request.info.elsewhere_s = first.queue_s + first.upstream_s
    write_reply(request, write_answer(call, results))


def _unless_gone(failure: Failure, request: ProxyRequest) -> Failure:
    """Return *failure*, or a cancellation if the client of *request* has left."""
    is_gone = failure.check(ProxyError) is not None and request.channel is None
    return Failure(CancelledError()) if is_gone else failure
