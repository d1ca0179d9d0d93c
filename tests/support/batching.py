"""Calls, and a collector in front of an upstream that is told what to do."""

from collections.abc import Sequence
from typing import Any

import msgspec
from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from abproxy.batching.admission import Admission
from abproxy.batching.batch import Count
from abproxy.batching.collector import BatchCollector
from abproxy.batching.concurrency import Budget, FixedLimit
from abproxy.batching.part import Caps
from abproxy.batching.slots import make_slots
from abproxy.dialects.call import Call, LaneKey, MayJoin, may_join_all
from abproxy.dialects.reply import write_answer
from abproxy.dialects.tei import EMBED
from abproxy.events import Observer
from abproxy.http.messages import Response, UpstreamRequest
from support.upstream import RecordingUpstream, row_of


def call_of(*texts: str, lane: str = "", sender: str | None = None) -> Call:
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
        sender=sender,
        alone=UpstreamRequest(path=b"/embed", headers=headers, body=body),
    )


@define(eq=False)
class Harness:
    """A collector with its clock and its upstream, which the test drives."""

    clock: Clock
    upstream: RecordingUpstream
    collector: BatchCollector

    def submit(
        self, *texts: str, lane: str = "", sender: str | None = None
    ) -> "Outcome":
        """Submit a call in a turn of the reactor by itself, and follow it."""
        outcome = self.submit_in_this_turn(*texts, lane=lane, sender=sender)
        self.clock.advance(0)
        return outcome

    def submit_in_this_turn(
        self, *texts: str, lane: str = "", sender: str | None = None
    ) -> "Outcome":
        """Submit a call in a turn that goes on, and follow it."""
        call = call_of(*texts, lane=lane, sender=sender)
        return Outcome(call, self.collector.submit(call))

    def submit_of(self, client: bytes, *texts: str) -> "Outcome":
        """Submit a call of *client* in a turn by itself, and follow it."""
        call = msgspec.structs.replace(call_of(*texts), client=client)
        outcome = Outcome(call, self.collector.submit(call))
        self.clock.advance(0)
        return outcome

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing waits, nothing is in flight and no timer runs."""
        collector = self.collector
        return (
            not collector.budget.items_in_flight
            and not collector.budget.slots_taken
            and not collector.admission.items
            and not collector.admission.size
            and not collector.admission.rest_items
            and not collector.admission.rest_size
            and not collector.admission.kept
            and not collector.admission.collected.size
            and not collector.admission.of_clients
            and not collector.queue.lanes
            and not collector.queue.quarantine.first
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


def harness(
    *,
    calls: int = 8,
    items: int = 32,
    size: int = 100_000,
    max_wait_s: float = 0,
    slots: int = 2,
    budget: int = 512,
    max_waiting_items: int = 10_000,
    max_waiting_size: int = 1 << 20,
    max_waiting_items_of_one: int | None = None,
    packs: bool = False,
    count: Count | None = None,
    observer: Observer | None = None,
    may_join: MayJoin = may_join_all,
    clock: Clock | None = None,
) -> Harness:
    """Make a collector in front of a recording upstream."""
    clock = clock or Clock()
    upstream = RecordingUpstream()
    collector = BatchCollector(
        clock=clock,
        send=upstream.send,
        caps=Caps(calls=calls, items=items, size=size),
        budget=Budget(
            limit=FixedLimit(ceiling=budget, batch=items), slots=make_slots(slots)
        ),
        admission=Admission(
            clock=clock,
            max_items=max_waiting_items,
            max_size=max_waiting_size,
            max_items_of_one=max_waiting_items_of_one,
        ),
        packs=packs,
        count=count,
        observer=observer or Observer(),
        may_join=may_join,
        max_wait_s=max_wait_s,
    )
    return Harness(clock, upstream, collector)


def texts(count: int, prefix: str = "t") -> Sequence[str]:
    """Make *count* different texts."""
    return [f"{prefix}{number}" for number in range(count)]
