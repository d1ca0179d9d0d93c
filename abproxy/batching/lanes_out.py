"""
Lanes that are out: whatever was sent for them lately has failed.

Calls of such a lane wait, and one of them a second is sent alone.  If it
succeeds, the lane goes on as before.  If it fails, that is its own answer; calls
that have seen two probes with different items fail since they came are told.
"""

from collections.abc import Sequence

from attrs import define, field
from twisted.internet.interfaces import IReactorTime

from abproxy.batching.batch import Failed
from abproxy.batching.part import Part, reject
from abproxy.batching.queue import Queue
from abproxy.dialects.call import LaneKey
from abproxy.errors import ProxyError, RefusedTogether
from abproxy.http.messages import Response

__all__ = ["LanesOut", "is_twin", "refused_together", "same_answer"]

WORKED_LATELY_S = 10.0
"""For how long a success speaks for a lane."""

PROBE_EVERY_S = 1.0
"""How often a lane that is out is tried."""

MOST_LANES = 1000
"""Lanes that are kept in mind."""


@define(eq=False)
class _Probe:
    """The last probe of a lane that is out."""

    items: Sequence[bytes]
    failed: Failed
    sent_at: float


@define(kw_only=True, eq=False)
class LanesOut:
    """The lanes to one upstream that are out, and when the others worked last."""

    clock: IReactorTime = field(repr=False)
    queue: Queue = field(repr=False)
    is_any: bool = field(init=False, default=False)
    _probes: dict[LaneKey, _Probe] = field(init=False, factory=dict, repr=False)
    _worked_at: dict[LaneKey, float] = field(init=False, factory=dict, repr=False)

    def has_worked_lately(self, key: LaneKey) -> bool:
        """Return whether the lane with *key* got a good answer lately."""
        worked_at = self._worked_at.get(key)
        now = self.clock.seconds()
        return worked_at is not None and now - worked_at < WORKED_LATELY_S

    def note_success(self, key: LaneKey) -> None:
        """Note that the lane with *key* got a good answer."""
        self._worked_at[key] = self.clock.seconds()
        if len(self._worked_at) > MOST_LANES:
            del self._worked_at[next(iter(self._worked_at))]
        if self.is_any and key in self._probes:
            self._forget(key)

    def add(self, probe: Part, failed: Failed) -> None:
        """Take the lane of *probe* out, as that *failed*."""
        key, now = probe.call.lane_key, self.clock.seconds()
        sent_at = now - failed.took_s
        self._probes[key] = _Probe(probe.items, failed, sent_at)
        self.is_any = True
        if len(self._probes) > MOST_LANES:
            self._forget(next(iter(self._probes)))
        self.queue.hold(key, now + PROBE_EVERY_S)

    def hold_again(self, key: LaneKey) -> None:
        """Hold a lane for a second after its last probe is over."""
        if key in self._probes:
            self.queue.hold(key, self.clock.seconds() + PROBE_EVERY_S)

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
        if before.items == probe.items:
            self._probes[key].sent_at = before.sent_at
            return
        seen_both = self.queue.take_if(
            key, lambda part: part.arrived_at <= before.sent_at
        )
        answer = same_answer(before.failed, failed) or refused_together(failed)
        reject(seen_both, answer)

    def _forget(self, key: LaneKey) -> None:
        del self._probes[key]
        self.is_any = bool(self._probes)
        self.queue.release(key)


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


def refused_together(failed: Failed) -> ProxyError:
    """Make the error for a call that was in a failed request, and not tried alone."""
    cause = failed.cause
    if isinstance(cause, ProxyError):
        return cause
    return RefusedTogether(
        "the inference server refused this request together with others "
        f"(status {cause.status})"
    )
