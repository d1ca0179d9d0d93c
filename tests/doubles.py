"""
Stand-ins that the tests share: calls, and an upstream that is told what to do.

The row of an item is a number made of the item, so that a test can tell
whether a caller got its own.
"""

from collections.abc import Sequence
from typing import Any
from zlib import crc32

import msgspec
from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from abproxy.batching.admission import Admission
from abproxy.batching.batch import Count
from abproxy.batching.collector import BatchCollector
from abproxy.batching.concurrency import Budget, FixedLimit, make_slots
from abproxy.batching.part import Caps
from abproxy.dialects.call import Call, LaneKey
from abproxy.dialects.reply import write_answer
from abproxy.dialects.tei import EMBED
from abproxy.events import Observer
from abproxy.http.messages import Response, UpstreamRequest
from abproxy.settings import FAST_PATHS


def row_of(item: Any) -> list[int]:
    """Say what the upstream answers for *item*."""
    return [crc32(msgspec.json.encode(item))]


def call_of(*texts: str, lane: str = "") -> Call:
    """Make a call for /embed; *lane* tells calls apart that may not share."""
    body = msgspec.json.encode({"inputs": list(texts)})
    parsed = EMBED.read(body)
    assert parsed is not None
    headers = ((b"Authorization", lane.encode()),) if lane else ()
    return Call(
        lane_key=LaneKey(
            dialect=EMBED,
            path=b"/embed",
            headers=headers,
            options=parsed.options,
            is_personal=lane.startswith("personal"),
        ),
        items=parsed.items,
        alone=UpstreamRequest(path=b"/embed", headers=headers, body=body),
    )


def reply(status: int, body: bytes, *headers: tuple[bytes, bytes]) -> Response:
    """Make an upstream's reply."""
    return Response(status=status, reason=b"", headers=headers, body=body)


@define(eq=False)
class Sent:
    """One request that has reached the upstream."""

    request: UpstreamRequest
    done: Deferred[Response]
    was_cancelled: bool = False

    @property
    def inputs(self) -> list[Any]:
        """The items in the request."""
        found = msgspec.json.decode(self.request.body)["inputs"]
        return found if isinstance(found, list) else [found]

    def answer(self) -> None:
        """Answer with the right rows."""
        rows = [row_of(item) for item in self.inputs]
        self.done.callback(reply(200, msgspec.json.encode(rows)))

    def refuse(self, status: int = 422, body: bytes = b"no") -> None:
        """Answer with an error."""
        self.done.callback(reply(status, body))

    def fail(self, error: Exception) -> None:
        """Give no answer."""
        self.done.errback(Failure(error))


@define(eq=False)
class RecordingUpstream:
    """Keeps what was sent; the test decides when and how it is answered."""

    sent: list[Sent] = field(factory=list)

    def send(self, request: UpstreamRequest) -> Deferred[Response]:
        """Take in one request."""
        sent = Sent(request, Deferred(lambda _: self._cancelled(sent)))
        self.sent.append(sent)
        return sent.done

    def _cancelled(self, sent: Sent) -> None:
        sent.was_cancelled = True

    @property
    def open(self) -> list[Sent]:
        """The requests without an answer."""
        return [sent for sent in self.sent if not sent.done.called]

    @property
    def batches(self) -> list[list[Any]]:
        """The inputs of every request so far."""
        return [sent.inputs for sent in self.sent]


@define(eq=False)
class House:
    """A collector with its clock and upstream, ready to be played with."""

    clock: Clock
    upstream: RecordingUpstream
    collector: BatchCollector

    def submit(self, *texts: str, lane: str = "") -> "Outcome":
        """Submit a call in a turn of the reactor by itself, and follow it."""
        outcome = self.submit_in_this_turn(*texts, lane=lane)
        self.clock.advance(0)
        return outcome

    def submit_in_this_turn(self, *texts: str, lane: str = "") -> "Outcome":
        """Submit a call in a turn that goes on, and follow it."""
        call = call_of(*texts, lane=lane)
        return Outcome(call, self.collector.submit(call))

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing waits, nothing is in flight and no timer runs."""
        collector = self.collector
        return (
            not collector.budget.items_in_flight
            and not collector.budget.slots_taken
            and not collector.admission.items
            and not collector.admission.size
            and not collector.queue.lanes
            and not collector.queue.has_quarantined
            and not self.clock.getDelayedCalls()
        )


@define(eq=False)
class Outcome:
    """What became of one call."""

    call: Call
    done: Deferred[Any]
    results: list[Any] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.done.addCallback(lambda results: write_answer(self.call, results))
        self.done.addBoth(self.results.append)

    @property
    def is_open(self) -> bool:
        """Whether the caller still waits."""
        return not self.results

    @property
    def reply(self) -> Response:
        """The only result, which is a reply."""
        [result] = self.results
        assert isinstance(result, Response), result
        return result

    @property
    def rows(self) -> Any:
        """The rows in the reply."""
        assert self.reply.status == 200
        return msgspec.json.decode(self.reply.body)

    @property
    def error(self) -> BaseException:
        """The only result, which is a failure."""
        [result] = self.results
        assert isinstance(result, Failure), result
        return result.value

    @property
    def is_right(self) -> bool:
        """Whether the caller got the rows of its own items, in order."""
        items = msgspec.json.decode(self.call.alone.body)["inputs"]
        return bool(self.rows == [row_of(item) for item in items])


def house(
    *,
    calls: int = 8,
    items: int = 32,
    size: int = 100_000,
    max_wait_s: float = 0,
    slots: int = 2,
    budget: int = 512,
    max_waiting_items: int = 10_000,
    max_waiting_size: int = 1 << 20,
    packs: bool = False,
    count: Count | None = None,
    observer: Observer | None = None,
) -> House:
    """Make a collector in front of a recording upstream."""
    clock = Clock()
    upstream = RecordingUpstream()
    collector = BatchCollector(
        clock=clock,
        send=upstream.send,
        caps=Caps(calls=calls, items=items, size=size),
        budget=Budget(
            limit=FixedLimit(ceiling=budget, batch=items), slots=make_slots(slots)
        ),
        admission=Admission(
            clock=clock, max_items=max_waiting_items, max_size=max_waiting_size
        ),
        packs=packs,
        count=count,
        observer=observer or Observer(),
        max_wait_s=max_wait_s,
    )
    return House(clock, upstream, collector)


def texts(count: int, prefix: str = "t") -> Sequence[str]:
    """Make *count* different texts."""
    return [f"{prefix}{number}" for number in range(count)]


def without(*names: str) -> frozenset[str]:
    """Leave fast paths out, by their names."""
    return frozenset(FAST_PATHS) - set(names)


def paths_of(client: str) -> frozenset[str]:
    """Choose the client for the upstream, fast or treq."""
    return without() if client == "fast" else without("client")
