"""
One batch in flight: send it, and fire each of its parts with the part's own rows.

What becomes of the parts if that fails is for isolation to say.
"""

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from attrs import define, evolve, field, frozen
from msgspec.structs import replace
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from abproxy.batching.part import Part, reject
from abproxy.dialects.call import BadAnswer, Items, PartResult, UnsplittableAnswer
from abproxy.errors import (
    InternalError,
    ProxyError,
    RefusedTogether,
    UpstreamBroken,
    UpstreamTimeout,
)
from abproxy.events import Cause
from abproxy.http.messages import (
    GATEWAY,
    NO_ROOM,
    QUICK_S,
    HeaderList,
    Response,
    Send,
    UpstreamRequest,
)

__all__ = [
    "Batch",
    "Count",
    "Failed",
    "fail_for_a_bug",
    "log_failed",
    "refused_together",
]

Count = Callable[[Sequence[Items], HeaderList], Coroutine[Any, Any, list[list[int]]]]
"""Count what each item of each part cost, to share out the usage of a batch."""

OK = 200

BODY_TOO_LARGE = 413

TOO_MANY = frozenset({BODY_TOO_LARGE, 422})
"""How TEI refuses more inputs than it takes: 413 up to version 1.8."""

_log = Logger()


@frozen(kw_only=True)
class Failed:
    """The failure of a request whose parts have no outcome yet."""

    cause: Cause
    took_s: float

    is_unsplittable: bool = False
    """Whether it was answered, in a form that cannot be split for several calls."""

    @property
    def is_outage(self) -> bool:
        """Return whether a gateway says at once that it cannot reach the upstream."""
        return self._is_of_gateway and self.took_s < QUICK_S

    @property
    def is_deadline(self) -> bool:
        """Return whether it took too long, by our deadline or a gateway's."""
        took_long = self._is_of_gateway and self.took_s >= QUICK_S
        return took_long or isinstance(self.cause, UpstreamTimeout)

    @property
    def is_no_room(self) -> bool:
        """Return whether it was refused for what came before it, as with a quota."""
        return isinstance(self.cause, Response) and self.cause.status in NO_ROOM

    @property
    def is_too_many(self) -> bool:
        """Return whether the number of items may have been refused."""
        return isinstance(self.cause, Response) and self.cause.status in TOO_MANY

    @property
    def is_too_large(self) -> bool:
        """Return whether so many items, or bytes of them, were refused for certain."""
        cause = self.cause
        return isinstance(cause, Response) and (
            cause.status == BODY_TOO_LARGE
            or (self.is_too_many and b"batch size" in cause.body)
        )

    @property
    def _is_of_gateway(self) -> bool:
        return isinstance(self.cause, Response) and self.cause.status in GATEWAY


def refused_together(failed: Failed) -> ProxyError:
    """Return the error for a call that was in a failed request, and not tried alone."""
    cause = failed.cause
    if isinstance(cause, ProxyError):
        return cause
    return RefusedTogether(
        "the inference server refused this request together with others "
        f"(status {cause.status})"
    )


@define(kw_only=True, eq=False)
class Batch:
    """The parts of one request, between leaving and answer."""

    parts: list[Part]

    clock: IReactorTime = field(repr=False)
    send: Send = field(repr=False)
    count: Count | None = field(repr=False)
    """Counts exactly; without it, usage is shared out by length."""

    sorts: bool = False
    """Whether items are sent by length, for an upstream that pads."""

    _pending: Deferred[Any] | None = field(init=False, default=None, repr=False)
    sent_at: float = field(init=False, default=0.0)

    answered_after_s: float | None = field(init=False, default=None)
    """How long the upstream took for the whole batch; None if it failed."""

    _order: list[int] | None = field(init=False, default=None, repr=False)

    @property
    def is_shared(self) -> bool:
        """Return whether several parts were sent, though callers may have left."""
        return len(self.parts) > 1

    @property
    def waiting(self) -> list[Part]:
        """Return the parts whose callers have not left."""
        return [part for part in self.parts if not part.cancelled]

    @property
    def items(self) -> int:
        """Return how many items are sent."""
        return sum([len(part.items) for part in self.parts])

    @property
    def size(self) -> int:
        """Return how many bytes its items have."""
        return sum([part.size for part in self.parts])

    async def attempt(self) -> Failed | None:
        """
        Send the request once; return None when each part has its outcome.

        If it fails, no part is told yet.
        """
        try:
            self._pending = self._send()
            response = await self._pending
            self._pending = None
            if response.status != OK:
                return self._failed(response)
            self.answered_after_s = self.clock.seconds() - self.sent_at
            await self._deliver(response)
        except ProxyError as error:
            return self._failed(error)
        except BadAnswer as error:
            message = f"the inference server's answer cannot be shared out: {error}"
            failed = self._failed(UpstreamBroken(message))
            unsplittable = isinstance(error, UnsplittableAnswer)
            if not unsplittable and response.source is not None:
                response.source.blame()
            return evolve(failed, is_unsplittable=unsplittable)
        except CancelledError:
            reject(self.parts, UpstreamBroken("the request was cancelled"))
        except Exception:  # noqa: BLE001  callers must be answered
            fail_for_a_bug(self.parts)
        return None

    async def look_at(self, outcome: Response | Failure) -> Failed | None:
        """Handle the bad *outcome* of a request that was sent already likewise."""
        # Not raised again: its traceback would hold what it is about.
        cause = outcome.value if isinstance(outcome, Failure) else outcome
        if isinstance(cause, Response | ProxyError):
            return self._failed(cause)
        if isinstance(cause, CancelledError):
            reject(self.parts, UpstreamBroken("the request was cancelled"))
        elif isinstance(outcome, Failure):
            fail_for_a_bug(self.parts, outcome)
        return None

    def _send(self) -> Deferred[Response]:
        for part in self.parts:
            part.on_cancel = self._drop
            part.sends += 1
        self.sent_at = self.clock.seconds()
        request = self._request()
        if request.traces:
            request = self._with_resends(request)
        return self.send(request)

    def _failed(self, cause: Cause) -> Failed:
        self._pending = None
        self.answered_after_s = None
        return Failed(cause=cause, took_s=self.clock.seconds() - self.sent_at)

    def _drop(self, _part: Part) -> None:
        """Cancel the request when all callers have left."""
        if self._pending is not None and not self.waiting:
            self._pending.cancel()

    def _request(self) -> UpstreamRequest:
        first = self.parts[0]
        if len(self.parts) == 1 and first.is_whole_call:
            return first.call.alone
        items = [item for part in self.parts for item in part.items]
        if self.sorts:
            self._order = sorted(range(len(items)), key=lambda at: len(items[at]))
            items = [items[at] for at in self._order]
        return first.call.lane_key.request(items, self._traces)

    def _with_resends(self, request: UpstreamRequest) -> UpstreamRequest:
        resends = max(part.sends for part in self.parts) - 1
        return replace(request, resends=resends) if resends else request

    @property
    def _traces(self) -> tuple[Any, ...]:
        traces = (part.call.trace for part in self.parts)
        return tuple(trace for trace in traces if trace is not None)

    async def _deliver(self, response: Response) -> None:
        first = self.parts[0]
        dialect = first.call.lane_key.dialect
        is_alone = len(self.parts) == 1 and first.is_whole_call
        if is_alone and not dialect.translates:
            result = PartResult(
                response=response,
                queue_s=self.sent_at - first.arrived_at,
                upstream_s=self.answered_after_s or 0.0,
            )
            first.fire([result])
            return
        lengths = await self._lengths()
        rows = dialect.split(response.body, lengths, self._order)
        # Parts of a large call wait for each other: not with the whole answer as well.
        response = replace(response, body=b"")
        for part, own in zip(self.parts, rows, strict=True):
            result = PartResult(
                response=response,
                rows=own,
                calls=len(self.parts),
                queue_s=self.sent_at - part.arrived_at,
                upstream_s=self.answered_after_s or 0.0,
            )
            part.fire([result])

    async def _lengths(self) -> list[Sequence[int]]:
        key = self.parts[0].call.lane_key
        if self.count is None or len(self.parts) == 1 or not key.dialect.has_usage:
            return [part.lengths for part in self.parts]
        items = [Items(raw=part.items, lengths=part.lengths) for part in self.parts]
        self._pending = Deferred.fromCoroutine(self.count(items, key.headers))
        return list(await self._pending)


def fail_for_a_bug(parts: Sequence[Part], bug: Failure | None = None) -> None:
    """Answer *parts* after an exception that has no other reason, and log it."""
    _log.failure("A batch failed: {request_ids}", bug, request_ids=_ids(parts))
    reject(parts, InternalError("a bug in abproxy; its log says more"))


def log_failed(parts: Sequence[Part], cause: Cause) -> None:
    """Write the *cause* for which *parts* of one batch got no rows into the log."""
    is_answer = isinstance(cause, Response)
    _log.warn(
        "A batch failed: {error} ({request_ids})",
        error=f"it was answered with {cause.status}" if is_answer else str(cause),
        request_ids=_ids(parts),
    )


def _ids(parts: Sequence[Part]) -> str:
    return b" ".join(part.call.request_id() for part in parts).decode()
