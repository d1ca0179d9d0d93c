"""
One inference server: how requests reach it, and what is known of it.

Everything about it is reachable from its `Upstream`, of which a proxy may have
several.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from attrs import asdict, define, field
from msgspec import Struct
from msgspec.structs import replace
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    gatherResults,
    maybeDeferred,
)
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import HTTPConnectionPool
from twisted.web.http import OK
from twisted.web.iweb import IAgent

from abproxy.errors import (
    CannotConnect,
    ConnectionBroken,
    HandshakeFailed,
    ProxyError,
    UpstreamTimeout,
)
from abproxy.events import Observer, UpstreamState
from abproxy.http.failures import as_proxy_failure, not_in_time
from abproxy.http.headers import LOCATIONS, Credentials, lead_back
from abproxy.http.messages import Response, UpstreamRequest
from abproxy.upstream.discovery import Discovery
from abproxy.upstream.endpoints import at_address
from abproxy.upstream.fast.connection import ConnectionPool
from abproxy.upstream.health import Health
from abproxy.upstream.identity import Generations, Source
from abproxy.upstream.server_info import ServerInfo

__all__ = ["Deadlines", "Trace", "Transport", "Upstream", "name_of"]

MAY_BE_REPLACED = (CannotConnect, HandshakeFailed, ConnectionBroken, UpstreamTimeout)
"""How a server fails that is perhaps no more; one whose host is gone is silent."""

Transport = Callable[[UpstreamRequest], Deferred[Response]]
"""
Send a request and receive the whole response, as our own client and treq do.

Cancelled, it closes the connection, and fails with that and nothing else.
"""

Trace = Callable[
    [UpstreamRequest, str, str | None],
    tuple[UpstreamRequest, Callable[[Any], Response | Failure]],
]
"""
Begin a span of a request to a base URL and its model.

Returns the request to send instead, and what ends the span.
"""


class _Sending(Struct, eq=False):
    """A request that was sent, and what has to be known when it is answered."""

    answer: Deferred[Response]
    source: Source
    """The generation of the server when it was sent."""

    began_at: float
    timeout_s: float
    learns: bool
    is_batch: bool
    end_span: Callable[[Any], Response | Failure] | None


@define(eq=False)
class Deadlines:
    """
    Cancels requests that have not ended in time, with one timer for all.

    A timer for each would be one of the dearer things about it: made, put in its
    place among the reactor's others and cancelled, for a time that hardly ever passes.
    """

    clock: IReactorTime = field(repr=False)

    _due: dict[Deferred[Any], float] = field(init=False, factory=dict, repr=False)
    """When each of those that are open is too late; the clock's seconds."""

    _timer: IDelayedCall | None = field(init=False, default=None, repr=False)
    _next_at: float = field(init=False, default=0.0)
    """When the timer looks; what was the first may have ended since it was set."""

    def add(self, waiter: Deferred[Any], due_at: float) -> None:
        """Cancel *waiter* then, unless it is removed before."""
        self._due[waiter] = due_at
        if self._timer is None or due_at < self._next_at:
            self._look_at(due_at)

    def remove(self, waiter: Deferred[Any]) -> bool:
        """Forget *waiter*, which has ended; return whether that was in time."""
        return self._due.pop(waiter, None) is not None

    def rest(self) -> None:
        """
        Cancel the timer if nothing is open.

        It is for when a waiter has its answer: nothing waits for this.
        """
        if self._timer is not None and not self._due:
            self._timer.cancel()
            self._timer = None

    def _look_at(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._next_at = at
        self._timer = self.clock.callLater(at - self.clock.seconds(), self._look)

    def _look(self) -> None:
        self._timer = None
        # The time may be off by a rounding error.
        now = max(self.clock.seconds(), self._next_at)
        late = [waiter for waiter, due_at in self._due.items() if due_at <= now]
        for waiter in late:
            if self._due.pop(waiter, None) is not None:
                waiter.cancel()
        if self._due and self._timer is None:
            self._look_at(min(self._due.values()))


@define(kw_only=True, eq=False)
class Upstream:
    """One inference server."""

    base_url: str
    credentials: Credentials
    """Shown with our own questions."""

    clock: IReactorTime = field(repr=False)
    timeout_s: float
    """
    How long a request may take, in seconds.

    It spans the body, because a body can stall as well as a head.
    """

    transport: Transport = field(repr=False)

    pool: ConnectionPool
    """The idle connections of our own client."""

    agent: IAgent = field(repr=False)
    """For requests that are relayed."""

    agent_pool: HTTPConnectionPool = field(repr=False)
    """The connections of the agent, and of treq."""

    on_change: Callable[[ServerInfo], None] = field(
        default=lambda _info: None, repr=False
    )
    """Called when something else is known of it than before."""

    on_lost: Callable[[], None] = field(default=lambda: None, repr=False)
    """Called when a connection to it broke, or cannot be made."""

    dialect: str = "auto"
    """Which API it has: tei, openai, or auto to find out."""

    address: str | None = None
    """Where it is, if it is one of several with the same base URL."""

    observer: Observer = field(factory=Observer, repr=False)
    trace: Trace | None = field(default=None, repr=False)

    generations: Generations = field(init=False, repr=False)
    """What may have been another server at its address."""

    _log: ClassVar[Logger] = Logger()
    refused: ClassVar[int] = 0
    """Servers that are left out for their model: the only one never is."""

    deadlines: Deadlines = field(init=False, repr=False)
    health: Health = field(init=False)
    discovery: Discovery = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.deadlines = Deadlines(self.clock)
        self.health = Health(clock=self.clock)
        self.generations = self.pool.generations
        self.discovery = Discovery(
            ask=self.ask,
            generations=self.generations,
            credentials=self.credentials,
            clock=self.clock,
            on_change=self.on_change,
            dialect=self.dialect,
        )

    @property
    def name(self) -> str:
        """Return what the log and the status call it: a URL of this server alone."""
        return at_address(self.base_url, self.address)

    @property
    def info(self) -> ServerInfo:
        """Return what is known of it."""
        return self.discovery.info

    @property
    def infos(self) -> Sequence[ServerInfo]:
        """Return what is known of each server that takes part: this is the only one."""
        return (self.discovery.info,)

    @property
    def is_certain(self) -> bool:
        """Return whether it has been asked, and no connection broke since then."""
        return self.discovery.is_certain

    @property
    def state(self) -> UpstreamState:
        """Return how it is."""
        return self.health.state

    @property
    def unfinished_bytes(self) -> int:
        """Return what has come of answers that are not whole yet."""
        return self.pool.unfinished_bytes

    def is_alive(self) -> Deferred[bool | None]:
        """Query whether it answers; never fails, and None if it is not certain."""
        return self.discovery.is_alive()

    def name_in_log(self) -> None:
        """Name it in lines of the log, as there are others beside it."""
        self.discovery.which = self.health.which = f" {self.name}"

    def use(self, credentials: Credentials) -> None:
        """Send these *credentials* with our own requests from now on."""
        self.credentials = self.discovery.credentials = credentials

    def ask(self, request: UpstreamRequest) -> Deferred[Response]:
        """Send a question of our own: no reason to ask more, and not measured."""
        return self.send(request, learns=False, is_batch=False)

    def send(
        self,
        request: UpstreamRequest,
        *,
        learns: bool = True,
        is_batch: bool = True,
        due_at: float | None = None,
    ) -> Deferred[Response]:
        """
        Send *request* and receive the whole response.

        Cancelling closes the connection: TEI then forgets what it has not
        begun to compute.

        Args:
            request: what to send.
            learns: whether its outcome may tell that the limits have changed.
            is_batch: whether it is measured and traced as a batch.
            due_at: when the answer is too late, if that is earlier than usual.

        Raises:
            UpstreamTimeout: no whole response within the deadline.
            UpstreamBroken: no connection, or no usable response.
        """
        end_span = None
        if is_batch and self.trace is not None:
            model = self.discovery.info.model
            request, end_span = self.trace(request, self.base_url, model)
        began_at, timeout_s = self.clock.seconds(), self.timeout_s
        source = self.generations.source
        sent = self.transport(request)
        answer: Deferred[Response] = Deferred(lambda _answer: sent.cancel())
        self.deadlines.add(answer, due_at or began_at + timeout_s)
        sending = _Sending(
            answer, source, began_at, timeout_s, learns, is_batch, end_span
        )
        sent.addBoth(self._ended, sending)
        return answer

    def _ended(self, outcome: Response | Failure, sending: "_Sending") -> None:
        """Return the *outcome* of a request, after recording it."""
        is_late = not self.deadlines.remove(sending.answer)
        answer = outcome if isinstance(outcome, Response) else None
        is_good = answer is not None and answer.status == OK
        try:
            if not is_good:
                # What follows from it has to be known before its caller goes on.
                outcome = self._learn_from(outcome, sending, is_late=is_late)
            names = dict(answer.headers) if answer and sending.is_batch else ()
            if answer and not LOCATIONS.isdisjoint(names):
                headers = lead_back(answer.headers, self.base_url)
                outcome = replace(answer, headers=headers)
            if sending.end_span is not None:
                outcome = sending.end_span(outcome)
        except Exception:  # noqa: BLE001  it must be answered
            outcome = Failure()
        took_s = self.clock.seconds() - sending.began_at
        # What followed from it may have cancelled the request.
        if not sending.answer.called:
            sending.answer.callback(outcome)
        # Noted when the client has its answer already.
        if is_good and answer and self.health.state is not UpstreamState.UP:
            self.health.answered(answer)
        if sending.is_batch:
            self.observer.upstream_request_ended(name_of(outcome), took_s)
        self.deadlines.rest()

    def _learn_from(
        self, outcome: Response | Failure, sending: "_Sending", *, is_late: bool
    ) -> Response | Failure:
        """Record an *outcome* that is no good answer; return it as callers get it."""
        if isinstance(outcome, Response):
            self.health.answered(outcome)
            if sending.learns:
                self.discovery.answered(outcome)
            return outcome
        failure = self._to_proxy_error(outcome)
        if is_late and failure.check(CancelledError):
            failure = Failure(not_in_time(sending.timeout_s))
        self.health.failed(failure)
        if failure.check(*MAY_BE_REPLACED):
            self.generations.end(sending.source)
            self.on_lost()
        if sending.learns:
            self.discovery.failed(failure)
        return failure

    def set_timeout(self, seconds: float) -> None:
        """Change how long a request may take, from the next one on."""
        self.timeout_s = seconds

    def describe(self) -> dict[str, Any]:
        """Return what the status says of it."""
        return {
            "url": self.name,
            "state": self.health.state.value,
            "why": self.health.why,
            "since": self.health.since,
            **asdict(self.discovery.info),
            "servers": self.servers(),
        }

    def servers(self) -> list[dict[str, Any]]:
        """Return what the status says of each of several: this is the only one."""
        return []

    def drain(self, address: str, *, is_drained: bool = True) -> None:
        """Do nothing: the only server cannot be taken out of use."""

    def apply(self, *, hedge_after: str | None, **_: Any) -> None:
        """Warn of what is set for several servers, and is of no use for one."""
        if hedge_after is not None:
            self._log.warn(
                "HEDGE_AFTER is of no use: there is only one inference server, {name}",
                name=self.name,
            )

    def report_to(
        self, on_change: Callable[[ServerInfo], None], on_resize: Callable[[], None]
    ) -> None:
        """Call *on_change* when something else is known of it than before."""
        del on_resize  # it always takes part
        self.discovery.on_change = on_change

    def left_out(self) -> tuple[int, int]:
        """Return how much is in flight at servers that are left out: it never is."""
        return 0, 0

    def start(self) -> None:
        """Start the discovery of its limits."""
        self.discovery.start()

    def stop(self) -> Deferred[Any]:
        """Stop the discovery; fires when the idle connections are closed."""
        self.discovery.stop()
        return self.close_idle()

    def close_idle(self) -> Deferred[Any]:
        """Close the connections without a request; fires when they are closed."""
        of_agent = maybeDeferred(self.agent_pool.closeCachedConnections)
        return gatherResults([of_agent, self.pool.close()])

    def _to_proxy_error(self, failure: Failure) -> Failure:
        told = as_proxy_failure(failure)
        if told.check(ConnectionBroken):
            # A server that restarts closes all of them at once: the next tries
            # would be used up on one after the other.
            self.close_idle()
        return told


def name_of(outcome: Response | Failure) -> str:
    """Return what figures call an *outcome*: its status, or why there is none."""
    if isinstance(outcome, Response):
        return str(outcome.status)
    if isinstance(outcome.value, ProxyError):
        return outcome.value.reason
    return "cancelled" if outcome.check(CancelledError) else "bug"
