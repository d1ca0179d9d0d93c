"""
One batch in flight: send it, and fire each of its parts with the part's own rows.

Every waiter is fired exactly once, or its part goes back to the queue.  A batch
that is refused because of what is in it is sent again as two halves, until what
is refused is one call: that one gets the upstream's own answer.
"""

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from attrs import define, evolve, field
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from abproxy.batching.backoff import Backoff
from abproxy.batching.part import Part, join_results, reject, split_part
from abproxy.batching.queue import QUARANTINE_AFTER, Queue
from abproxy.dialects.call import BadAnswer, Items, PartResult
from abproxy.errors import (
    CannotConnect,
    ConnectionBroken,
    InternalError,
    ProxyError,
    UpstreamBroken,
)
from abproxy.events import Observer
from abproxy.http.messages import NO_ROOM, HeaderList, Response, Send, UpstreamRequest

__all__ = ["Batch", "Count"]

Count = Callable[[Sequence[Items], HeaderList], Coroutine[Any, Any, list[list[int]]]]
"""Count what each item of each part cost, to share out the usage of a batch."""

OK = 200
BAD_REQUEST = 400
SERVER_ERROR = 500
TOO_MANY = frozenset({413, 422})
"""How TEI refuses more inputs than it takes: 413 up to version 1.8."""

SAME_FOR_ALL = frozenset({401, 402, 403, 404, 405, 406, 407, 408, 410, 415, 421, 426})
"""Refusals that do not depend on the items: all calls of a lane share them."""

_log = Logger()


@define(kw_only=True, eq=False)
class Batch:
    """The parts of one batch between leaving and answer."""

    parts: list[Part]

    clock: IReactorTime = field(repr=False)
    send: Send = field(repr=False)
    count: Count | None = field(repr=False)
    observer: Observer = field(repr=False)

    queue: Queue = field(repr=False)
    """Where parts go back to that are to be sent alone."""

    backoff: Backoff = field(repr=False)
    """Where parts go back to that the upstream had no room for."""

    splits: bool = True
    """Whether a part may be split that is too large for the upstream."""

    sorts: bool = False
    """Whether items are sent by length, for an upstream that pads."""

    answered_after_s: float | None = field(init=False, default=None)
    """How long the upstream took for the whole batch; None if it failed."""

    _order: list[int] | None = field(init=False, default=None, repr=False)
    _pending: Deferred[Any] | None = field(init=False, default=None, repr=False)
    _sent_at: float = field(init=False, default=0.0)

    def start(self) -> Deferred[None]:
        """Leave now.  Fires with None when nothing is left to do."""
        for part in self.parts:
            part.on_cancel = self._drop
        return Deferred.fromCoroutine(self._run())

    def _drop(self, _part: Part) -> None:
        """Cancel the request when all callers have left."""
        if self._pending is not None and not self._waiting:
            self._pending.cancel()

    @property
    def _is_shared(self) -> bool:
        """Return whether several parts were sent, though callers may have left."""
        return len(self.parts) > 1

    @property
    def _waiting(self) -> list[Part]:
        return [part for part in self.parts if not part.cancelled]

    async def _run(self) -> None:
        try:
            await self._send_once()
        except ProxyError as error:
            self._warn_and_reject(error)
        except BadAnswer as error:
            message = f"the inference server's answer cannot be shared out: {error}"
            self._warn_and_reject(UpstreamBroken(message))
        except CancelledError:
            reject(self.parts, UpstreamBroken("the request was cancelled"))
        except Exception:  # noqa: BLE001  a bug must not starve the callers
            _log.failure("A batch failed: {request_ids}", request_ids=self._request_ids)
            reject(self.parts, InternalError("a bug in abproxy; its log says more"))

    async def _send_once(self) -> None:
        try:
            self._sent_at = self.clock.seconds()
            self._pending = self.send(self._request())
            response = await self._pending
        except CannotConnect as error:
            self.backoff.requeue(self._waiting, error, shared=self._is_shared)
        except ConnectionBroken as error:
            await self._after_broken_connection(error)
        else:
            self._pending = None
            await self._take_response(response)

    def _request(self) -> UpstreamRequest:
        first = self.parts[0]
        if len(self.parts) == 1 and first.is_whole_call:
            return first.call.alone
        items = [item for part in self.parts for item in part.items]
        if self.sorts:
            self._order = sorted(range(len(items)), key=lambda at: len(items[at]))
            items = [items[at] for at in self._order]
        return first.call.lane_key.request(items, self._traces)

    @property
    def _traces(self) -> tuple[Any, ...]:
        traces = (part.call.trace for part in self.parts)
        return tuple(trace for trace in traces if trace is not None)

    @property
    def _request_ids(self) -> str:
        return b" ".join(part.call.request_id() for part in self.parts).decode()

    # The upstream has answered

    async def _take_response(self, response: Response) -> None:
        if response.status in NO_ROOM:
            self.backoff.requeue(self._waiting, response, shared=self._is_shared)
            return
        self.backoff.reset()
        if response.status == OK:
            self.answered_after_s = self.clock.seconds() - self._sent_at
        if len(self.parts) == 1:
            await self._take_response_for_one(self.parts[0], response)
        elif response.status == OK:
            await self._share_out(response)
        elif self._blames_an_item(response.status):
            self.observer.batch_split()
            await self._send_halves(self._waiting)
        else:
            self._pass_on(response)

    async def _take_response_for_one(self, part: Part, response: Response) -> None:
        if response.status == OK and not part.is_whole_call:
            await self._share_out(response)
        elif response.status in TOO_MANY and self._was_too_large(part):
            await self._send_in_pieces(part)
        else:
            self._pass_on(response)

    async def _share_out(self, response: Response) -> None:
        lengths = await self._lengths()
        dialect = self.parts[0].call.lane_key.dialect
        rows = dialect.split(response.body, lengths, self._order)
        for part, own in zip(self.parts, rows, strict=True):
            result = PartResult(
                response=response,
                rows=own,
                calls=len(self.parts),
                queue_s=self._sent_at - part.arrived_at,
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

    def _pass_on(self, response: Response) -> None:
        for part in self.parts:
            part.fire([PartResult(response=response)])

    def _blames_an_item(self, status: int) -> bool:
        return BAD_REQUEST <= status < SERVER_ERROR and status not in SAME_FOR_ALL

    def _was_too_large(self, part: Part) -> bool:
        """
        Return whether *part* was made for larger batches than there are now.

        The upstream has just said so, and the queue's caps say the same by now.
        """
        may_split = self.splits and not part.call.lane_key.serial
        return may_split and len(part.items) > self.queue.caps.items

    async def _send_in_pieces(self, part: Part) -> None:
        pieces = split_part(part, self.queue.caps)
        self._pending = join_results(pieces).addBoth(part.fire)
        await self._send_again([[piece] for piece in pieces])

    # The connection broke

    async def _after_broken_connection(self, error: ConnectionBroken) -> None:
        """
        Send again what need not have been the cause of a broken connection.

        An embedding is the same whoever asks and however often.  First as
        halves, as the connection may have been an idle one just closing;
        after a second break each call alone, as one of them may be what kills
        the upstream; after a third there is no doubt left.
        """
        # It was there to break: this is no longer the trouble before.
        self.backoff.reset()
        for part in self._waiting:
            part.connection_failures += 1
        self._pending = None
        failed = [p for p in self._waiting if p.connection_failures > QUARANTINE_AFTER]
        reject(failed, error)
        alone = [p for p in self._waiting if p.connection_failures == QUARANTINE_AFTER]
        self.queue.quarantine(alone)
        others = [p for p in self._waiting if p.connection_failures < QUARANTINE_AFTER]
        if others:
            self.observer.batch_resent()
            await self._send_halves(others)

    async def _send_halves(self, parts: list[Part]) -> None:
        middle = len(parts) // 2
        await self._send_again([parts[:middle], parts[middle:]])

    async def _send_again(self, groups: list[list[Part]]) -> None:
        batches = [evolve(self, parts=parts, sorts=False) for parts in groups if parts]
        await gatherResults([batch.start() for batch in batches])

    def _warn_and_reject(self, error: ProxyError) -> None:
        _log.warn(
            "A batch failed: {error} ({request_ids})",
            error=str(error),
            request_ids=self._request_ids,
        )
        reject(self.parts, error)
