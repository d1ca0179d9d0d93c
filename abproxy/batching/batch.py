"""
One batch's way to the upstream and back: send, cut, fire.

Every waiter is fired exactly once, or its part is handed back to travel with
another batch.  A batch that is refused because of what is in it travels again
as two halves, until what is refused is one call: that one gets the upstream's
own answer.
"""

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from abproxy.batching.gathering import gather
from abproxy.batching.part import Caps, Part, cut_up
from abproxy.dialects.call import BadAnswer, PartResult
from abproxy.errors import (
    CannotConnect,
    ConnectionBroken,
    InternalError,
    ProxyError,
    UpstreamBroken,
)
from abproxy.events import Cause, Observer
from abproxy.http.messages import NO_ROOM, Response, Send, UpstreamRequest

__all__ = ["Batch", "Count", "Road", "by_length"]

Count = Callable[[Sequence[Part]], Coroutine[Any, Any, list[list[int]]]]
"""Count what each item of each part cost, to share out the usage of a batch."""

OK = 200
BAD_REQUEST = 400
SERVER_ERROR = 500
TOO_MANY = frozenset({413, 422})
"""How TEI refuses more inputs than it takes: 413 up to version 1.8."""

SAME_FOR_ALL = frozenset({401, 402, 403, 404, 405, 406, 407, 408, 410, 415, 421, 426})
"""Refusals that do not depend on the items: all calls of a lane share them."""

SUSPECT = 2
"""Breaks after which a part is a suspect; one more convicts it."""

_log = Logger()


class Road(Protocol):
    """What a trip needs of the world, and where it leaves what it cannot do."""

    clock: IReactorTime
    send: Send
    count: Count
    observer: Observer

    def caps_for_cutting(self) -> Caps | None:
        """What fits into a batch now; None if nothing may be cut."""

    def got_through(self) -> None:
        """The upstream has answered."""

    def put_back(self, parts: list[Part], cause: Cause, *, shared: bool) -> None:
        """The upstream took no work: *parts*, if *shared* of one request, wait on."""

    def quarantine(self, parts: list[Part]) -> None:
        """Each of *parts* may be what breaks the upstream: it travels alone."""


@define(kw_only=True, eq=False)
class Batch:
    """The parts of one batch between leaving and answer."""

    parts: list[Part]
    road: Road = field(repr=False)

    sorts: bool = False
    """Whether items travel by length, for an upstream that pads."""

    answered_after_s: float | None = field(init=False, default=None)
    """How long the upstream took for the whole batch; None if it failed."""

    _order: list[int] | None = field(init=False, default=None, repr=False)
    _under_way: Deferred[Any] | None = field(init=False, default=None, repr=False)
    _left_at: float = field(init=False, default=0.0)

    def start(self) -> Deferred[None]:
        """Leave now.  Fires with None when nothing is left to do."""
        for part in self.parts:
            part.holder = self
        return Deferred.fromCoroutine(self._travel())

    def drop(self, _part: Part) -> None:
        """A caller left; when all have left, so does the request."""
        if self._under_way is not None and not self._left:
            self._under_way.cancel()

    @property
    def _is_shared(self) -> bool:
        """Whether several parts were in the request, though callers may have left."""
        return len(self.parts) > 1

    @property
    def _left(self) -> list[Part]:
        return [part for part in self.parts if not part.gone]

    async def _travel(self) -> None:
        try:
            await self._try()
        except ProxyError as error:
            self._warn_and_fail(error)
        except BadAnswer as error:
            message = f"the inference server's answer cannot be shared out: {error}"
            self._warn_and_fail(UpstreamBroken(message))
        except CancelledError:
            self._fail(UpstreamBroken("the request was cancelled"))
        except Exception:  # noqa: BLE001  a bug must not starve the callers
            _log.failure("A batch failed: {request_ids}", request_ids=self._names)
            self._fail(InternalError("a bug in abproxy; its log says more"))

    async def _try(self) -> None:
        try:
            self._left_at = self.road.clock.seconds()
            self._under_way = self.road.send(self._request())
            reply = await self._under_way
        except CannotConnect as error:
            self.road.put_back(self._left, error, shared=self._is_shared)
        except ConnectionBroken as error:
            await self._break(error)
        else:
            self._under_way = None
            await self._arrive(reply)

    def _request(self) -> UpstreamRequest:
        first = self.parts[0]
        if len(self.parts) == 1 and first.is_whole_call:
            return first.call.alone
        items = [item for part in self.parts for item in part.items]
        if self.sorts:
            self._order = sorted(range(len(items)), key=lambda at: len(items[at]))
            items = [items[at] for at in self._order]
        return first.call.lane.request(items, self._traces)

    @property
    def _traces(self) -> tuple[Any, ...]:
        traces = (part.call.trace for part in self.parts)
        return tuple(trace for trace in traces if trace is not None)

    @property
    def _names(self) -> str:
        return b" ".join(part.call.request_id() for part in self.parts).decode()

    async def _arrive(self, reply: Response) -> None:
        if reply.status in NO_ROOM:
            self.road.put_back(self._left, reply, shared=self._is_shared)
            return
        self.road.got_through()
        if reply.status == OK:
            self.answered_after_s = self.road.clock.seconds() - self._left_at
        if len(self.parts) == 1:
            await self._arrive_alone(self.parts[0], reply)
        elif reply.status == OK:
            await self._share_out(reply)
        elif self._blames_an_item(reply.status):
            self.road.observer.batch_split()
            await self._halve(self._left)
        else:
            self._pass_on(reply)

    async def _arrive_alone(self, part: Part, reply: Response) -> None:
        caps = self.road.caps_for_cutting()
        if reply.status == OK and not part.is_whole_call:
            await self._share_out(reply)
        elif reply.status in TOO_MANY and caps and len(part.items) > caps.items:
            await self._travel_in_pieces(part, caps)
        else:
            self._pass_on(reply)

    async def _share_out(self, reply: Response) -> None:
        lengths = await self._lengths()
        slices = self.parts[0].call.lane.dialect.split(reply.body, lengths, self._order)
        for part, own in zip(self.parts, slices, strict=True):
            result = PartResult(
                response=reply,
                rows=own,
                calls=len(self.parts),
                queue_s=self._left_at - part.arrived_at,
                upstream_s=self.answered_after_s or 0.0,
            )
            part.fire([result])

    async def _lengths(self) -> list[Sequence[int]]:
        if len(self.parts) > 1 and self.parts[0].call.lane.dialect.has_usage:
            self._under_way = Deferred.fromCoroutine(self.road.count(self.parts))
            return list(await self._under_way)
        return [part.lengths for part in self.parts]

    def _pass_on(self, reply: Response) -> None:
        for part in self.parts:
            part.fire([PartResult(response=reply)])

    def _blames_an_item(self, status: int) -> bool:
        return BAD_REQUEST <= status < SERVER_ERROR and status not in SAME_FOR_ALL

    async def _travel_in_pieces(self, part: Part, caps: Caps) -> None:
        """
        Send a part again that was cut for larger batches than there are now.

        The upstream has just said so, and its word is in *caps* by now.
        """
        pieces = cut_up(part, caps)
        self._under_way = gather(pieces).addBoth(part.fire)
        await self._all_arrived([[piece] for piece in pieces])

    async def _break(self, error: ConnectionBroken) -> None:
        """
        Send again what may have been innocent when the connection broke.

        An embedding is the same whoever asks and however often.  First as
        halves, as the connection may have been an idle one just closing;
        after a second break each call alone, as one of them may be what kills
        the upstream; after a third there is no doubt left.
        """
        # It was there to break: this is no longer the trouble before.
        self.road.got_through()
        for part in self._left:
            part.breaks += 1
        self._under_way = None
        for part in self._left:
            if part.breaks > SUSPECT:
                part.fire(Failure(error.copy()))
        self.road.quarantine([part for part in self._left if part.breaks == SUSPECT])
        innocent = [part for part in self._left if part.breaks < SUSPECT]
        if innocent:
            self.road.observer.batch_resent()
            await self._halve(innocent)

    async def _halve(self, parts: list[Part]) -> None:
        middle = len(parts) // 2
        await self._all_arrived([parts[:middle], parts[middle:]])

    async def _all_arrived(self, batches: list[list[Part]]) -> None:
        trips = [Batch(parts=parts, road=self.road) for parts in batches if parts]
        await gatherResults([trip.start() for trip in trips])

    def _warn_and_fail(self, error: ProxyError) -> None:
        _log.warn(
            "A batch failed: {error} ({request_ids})",
            error=str(error),
            request_ids=self._names,
        )
        self._fail(error)

    def _fail(self, error: ProxyError) -> None:
        for part in self.parts:
            part.fire(Failure(error.copy()))


async def by_length(parts: Sequence[Part]) -> list[list[int]]:
    """Count characters, where nobody counts tokens."""
    return [list(part.lengths) for part in parts]
