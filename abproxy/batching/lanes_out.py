"""
Lanes that are out: whatever was sent for them lately has failed.

Calls of such a lane wait, and one of them a second is sent alone.  If it
succeeds, the lane goes on as before.  If it fails, that is its own answer; calls
that have seen two probes with different items fail since they came are told.
"""

import re
from collections.abc import Mapping
from math import inf

from attrs import define, field
from twisted.internet.interfaces import IReactorTime

from abproxy.batching.batch import Failed, refused_together
from abproxy.batching.part import Part, reject
from abproxy.batching.queue import HeldBy, Queue
from abproxy.dialects.call import LaneKey
from abproxy.http.messages import Response

__all__ = ["LanesOut", "Probe", "is_twin", "same_answer", "speaks_of_inputs"]

WORKED_LATELY_S = 10.0
"""For how long a success speaks for a lane."""

PROBE_EVERY_S = 1.0
"""How often a lane that is out is tried."""

MOST_LANES, MOST_SIZE = 1000, 16_000_000
"""Lanes that are kept in mind, and the bytes of those that are out."""


_OF_INPUTS = re.compile(rb'"(?:error_)?type"\s*:\s*"(?:Validation|Tokenizer|Empty)"')
"""How TEI names what is wrong with inputs, on its own and on the OpenAI routes."""


@define(eq=False)
class Probe:
    """The last probe of a lane that is out."""

    items: int
    """The hash of its items: a lane is kept in mind for long, texts are not."""

    failed: Failed
    sent_at: float
    began_at: float
    size: int
    """How many bytes are kept because of it."""


@define(kw_only=True, eq=False)
class LanesOut:
    """The lanes to one upstream that are out, and when the others worked last."""

    clock: IReactorTime = field(repr=False)
    queue: Queue = field(repr=False)
    is_any: bool = field(init=False, default=False)
    _probes: dict[LaneKey, Probe] = field(init=False, factory=dict, repr=False)
    _size: int = field(init=False, default=0)
    _worked_at: dict[int, float] = field(init=False, factory=dict, repr=False)
    """By the hash of a lane's key, as a key is as long as its client likes."""

    def lanes(self) -> Mapping[LaneKey, Probe]:
        """Return the lanes that are out, and the last probe of each."""
        return self._probes

    def has_worked_lately(self, key: LaneKey) -> bool:
        """Return whether the lane with *key* got a good answer lately."""
        return self.has_worked_since(key, self.clock.seconds() - WORKED_LATELY_S)

    def has_worked_since(self, key: LaneKey, since: float) -> bool:
        """Return whether the lane with *key* got a good answer after a time."""
        worked_at = self._worked_at.get(hash(key))
        return worked_at is not None and worked_at > since

    def note_success(self, key: LaneKey) -> None:
        """Note that the lane with *key* got a good answer."""
        self._worked_at[hash(key)] = self.clock.seconds()
        if len(self._worked_at) > MOST_LANES:
            del self._worked_at[next(iter(self._worked_at))]
        if self.is_any and key in self._probes:
            self._forget(key)

    def add(self, probe: Part, failed: Failed) -> None:
        """Declare the lane of *probe* out, as that *failed*."""
        key, now = probe.call.lane_key, self.clock.seconds()
        before = self._probes.pop(key, None)
        self._probes[key] = new = Probe(
            items=hash(tuple(probe.items)),
            failed=failed,
            sent_at=now - failed.took_s,
            began_at=before.began_at if before else now,
            size=_size_of(key, failed),
        )
        self._size += new.size - (before.size if before else 0)
        self.is_any = True
        self.queue.hold(key, HeldBy.OUT, now + PROBE_EVERY_S)
        while len(self._probes) > MOST_LANES or self._size > MOST_SIZE:
            self._forget(next(iter(self._probes)))

    def note_sent(self, key: LaneKey) -> None:
        """Hold a lane whose probe has left, until `hold_again`."""
        if key in self._probes:
            self.queue.hold(key, HeldBy.OUT, inf)

    def hold_again(self, key: LaneKey) -> None:
        """Hold a lane for a second after its last probe is over."""
        if key in self._probes:
            until = self.clock.seconds() + PROBE_EVERY_S
            self.queue.hold(key, HeldBy.OUT, until)

    def note_failed(self, probe: Part, failed: Failed) -> None:
        """Note that a call *failed* alone: of a lane that is out it was the probe."""
        key = probe.call.lane_key
        before = self._probes.get(key)
        if before is None:
            return
        self.add(probe, failed)
        reject(
            self.queue.take_if(key, lambda part: is_twin(part, probe)),
            failed.cause,
        )
        if before.items == hash(tuple(probe.items)):
            if key in self._probes:
                self._probes[key].sent_at = before.sent_at
            return
        seen_both = self.queue.take_if(
            key, lambda part: part.arrived_at <= before.sent_at
        )
        answer = same_answer(before.failed, failed) or refused_together(failed)
        reject(seen_both, answer)

    def _forget(self, key: LaneKey) -> None:
        self._size -= self._probes.pop(key).size
        self.is_any = bool(self._probes)
        self.queue.release(key, HeldBy.OUT)


def _size_of(key: LaneKey, failed: Failed) -> int:
    body = failed.cause.body if isinstance(failed.cause, Response) else b""
    return key.size + len(body)


def is_twin(part: Part, other: Part) -> bool:
    """Return whether two calls are the same request, and so get the same answer."""
    return part.call.alone.body == other.call.alone.body and (
        part.is_whole_call and other.is_whole_call
    )


def same_answer(first: Failed, second: Failed) -> Response | None:
    """Return what two probes got alike, byte for byte; None if they did not."""
    one, other = first.cause, second.cause
    if not isinstance(one, Response) or not isinstance(other, Response):
        return None
    if (one.status, one.body) != (other.status, other.body):
        return None
    return Response(
        status=one.status,
        reason=one.reason,
        headers=tuple(line for line in one.headers if line in other.headers),
        body=one.body,
    )


def speaks_of_inputs(failed: Failed) -> bool:
    """Return whether TEI itself says that the inputs are at fault, and not the lane."""
    cause = failed.cause
    return isinstance(cause, Response) and _OF_INPUTS.search(cause.body) is not None
