"""
One inference server: how requests reach it, and what is known of it.

Everything about it is reachable from its `Upstream`, of which a proxy may have
several.
"""

from collections.abc import Callable
from typing import Any

from attrs import asdict, define, field
from msgspec.structs import replace
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    gatherResults,
    maybeDeferred,
)
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.web.client import HTTPConnectionPool
from twisted.web.iweb import IAgent

from abproxy.errors import ConnectionBroken, ProxyError
from abproxy.events import Observer, UpstreamState
from abproxy.http.failures import as_proxy_failure, timed_out
from abproxy.http.headers import LOCATIONS, Credentials, lead_back
from abproxy.http.messages import Response, UpstreamRequest
from abproxy.upstream.discovery import Discovery, ServerInfo
from abproxy.upstream.fast.connection import ConnectionPool
from abproxy.upstream.health import Health

__all__ = ["Trace", "Transport", "Upstream"]

OK = 200

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

    observer: Observer = field(factory=Observer, repr=False)
    trace: Trace | None = field(default=None, repr=False)

    health: Health = field(init=False)
    discovery: Discovery = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Begin with nothing known."""
        self.health = Health(clock=self.clock)
        self.discovery = Discovery(
            ask=self.ask,
            credentials=self.credentials,
            clock=self.clock,
            on_change=self.on_change,
        )

    def use(self, credentials: Credentials) -> None:
        """Show these *credentials* with our own questions from now on."""
        self.credentials = self.discovery.credentials = credentials

    def ask(self, request: UpstreamRequest) -> Deferred[Response]:
        """Send a question of our own: no reason to ask more, and not measured."""
        return self.send(request, learns=False, is_batch=False)

    def send(
        self, request: UpstreamRequest, *, learns: bool = True, is_batch: bool = True
    ) -> Deferred[Response]:
        """
        Send *request* and receive the whole response.

        Cancelling closes the connection: TEI then forgets what it has not
        begun to compute.

        Args:
            request: what to send.
            learns: whether its outcome may tell that the limits have changed.
            is_batch: whether it is measured and traced as a batch.

        Raises:
            UpstreamTimeout: no whole response within the deadline.
            UpstreamBroken: no connection, or no usable response.
        """
        end_span = None
        if is_batch and self.trace is not None:
            model = self.discovery.info.model
            request, end_span = self.trace(request, self.base_url, model)
        began_at = self.clock.seconds()
        sent = self.transport(request)
        sent.addErrback(self._to_proxy_error)
        sent.addTimeout(self.timeout_s, self.clock, timed_out)
        sent.addCallbacks(self._answered, self._failed, (learns,), {}, (learns,), {})
        if is_batch:
            sent.addBoth(self._measured, began_at)
        if end_span is not None:
            sent.addBoth(end_span)
        return sent

    def set_timeout(self, seconds: float) -> None:
        """Change how long a request may take, from the next one on."""
        self.timeout_s = seconds

    def describe(self) -> dict[str, Any]:
        """Return what the status says of it."""
        return {
            "url": self.base_url,
            "state": self.health.state.value,
            "why": self.health.why,
            "since": self.health.since,
            **asdict(self.discovery.info),
        }

    def start(self) -> None:
        """Begin to ask for its limits."""
        self.discovery.start()

    def stop(self) -> Deferred[Any]:
        """Ask no more; fires when the connections without a request are closed."""
        self.discovery.stop()
        return self.close_idle()

    def close_idle(self) -> Deferred[Any]:
        """Close the connections without a request; fires when they are closed."""
        of_agent = maybeDeferred(self.agent_pool.closeCachedConnections)
        return gatherResults([of_agent, self.pool.close()])

    def _answered(self, response: Response, learns: bool) -> Response:  # noqa: FBT001
        """Let a response change what is known; as most are good, most do not."""
        is_good = response.status == OK
        if not is_good or self.health.state is not UpstreamState.UP:
            self.health.answered(response)
        if learns and not is_good:
            self.discovery.answered(response)
        return response

    def _failed(self, failure: Failure, learns: bool) -> Failure:  # noqa: FBT001
        self.health.failed(failure)
        return self.discovery.failed(failure) if learns else failure

    def _to_proxy_error(self, failure: Failure) -> Failure:
        told = as_proxy_failure(failure)
        if told.check(ConnectionBroken):
            # A server that restarts closes all of them at once: the next tries
            # would be used up on one after the other.
            self.close_idle()
        return told

    def _measured(
        self, result: Response | Failure, began_at: float
    ) -> Response | Failure:
        took_s = self.clock.seconds() - began_at
        if isinstance(result, Response):
            self.observer.upstream_request_ended(str(result.status), took_s)
            if not LOCATIONS.isdisjoint(dict(result.headers)):
                headers = lead_back(result.headers, self.base_url)
                return replace(result, headers=headers)
        else:
            self.observer.upstream_request_ended(_reason_of(result), took_s)
        return result


def _reason_of(failure: Failure) -> str:
    if isinstance(failure.value, ProxyError):
        return failure.value.reason
    return "cancelled" if failure.check(CancelledError) else "bug"
