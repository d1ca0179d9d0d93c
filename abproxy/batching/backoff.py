"""
When the upstream takes no work: wait, try one batch, wait longer.

One attempt at a time, so that a refusal is never multiplied; the first pause
is short, each further one twice as long up to a bound.  What the upstream
asks for with `Retry-After` counts if it is longer.  An attempt that takes long
is no refusal: while it is not answered, one more may go each second.

A server that is full, or away, is so for all callers, and trying again is ours
to do.  A client whose own quota is used up must hear of it, and no other.
The words of a refusal are for the call that was refused: an upstream may quote
the request.  All others whose time to wait is over get an error of ours.
"""

import re
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from math import ceil

from attrs import define, field, frozen
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from abproxy.batching.batch import Failed, log_failed, refused_together
from abproxy.batching.concurrency import Budget
from abproxy.batching.part import Part, reject
from abproxy.batching.queue import QUARANTINE_AFTER, Queue
from abproxy.dialects.call import LaneKey
from abproxy.errors import CannotConnect, ProxyError, UpstreamFull
from abproxy.events import Cause, Observer
from abproxy.http.messages import GATEWAY, Response

__all__ = [
    "FIRST_PAUSE_S",
    "LONGEST_PAUSE_S",
    "Backoff",
    "RetryTimeouts",
    "is_for_all",
    "is_no_answer",
    "is_size_possible",
]

FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 1.0

LONG_S = 1.0
"""After so many seconds without an answer an attempt takes long."""

TOO_MANY_REQUESTS = 429
"""Of all clients, or of one."""

_OVERLOADED = re.compile(rb'"(?:error_)?type"\s*:\s*"Overloaded"')
"""TEI's own word for having no permit left."""


@frozen(kw_only=True)
class RetryTimeouts:
    """The seconds for which calls wait for an upstream that takes no work."""

    connect_s: float = 5.0
    """One that cannot be reached: about as long as a restart takes."""

    overload_s: float = 5.0
    """One that has no room."""

    def after(self, cause: Cause) -> float:
        """Return the one that *cause* is about."""
        return self.connect_s if _is_away(cause) else self.overload_s


@define(kw_only=True, eq=False)
class Backoff:
    """The state of an upstream that refuses work, or cannot be reached."""

    clock: IReactorTime = field(repr=False)
    queue: Queue = field(repr=False)
    budget: Budget = field(repr=False)
    observer: Observer = field(repr=False)
    timeouts: Callable[[], RetryTimeouts] = field(repr=False)

    resume: Callable[[], None] = field(repr=False)
    """Called when the next attempt may be made."""

    began_at: float | None = field(default=None, init=False)
    """Since when nothing has got through; None if all is well."""

    tried_at: float = field(default=0.0, init=False)
    """When a batch was sent last."""

    _pause_s: float = field(default=0.0, init=False)
    _timer: IDelayedCall | None = field(default=None, init=False, repr=False)

    @property
    def pauses(self) -> bool:
        """Return whether nothing may be sent right now."""
        return self._timer is not None

    @property
    def takes_long(self) -> bool:
        """Return whether the latest attempt should have been answered by now."""
        return self.clock.seconds() - self.tried_at >= LONG_S

    def failed(self, retry_after_s: float = 0.0) -> None:
        """
        Note one more failure, and pause.

        Failures of one wave, which were in flight together, count as one.
        """
        if self._timer is not None:
            return
        if self.began_at is None:
            self.began_at = self.clock.seconds()
        longer = min(self._pause_s * 2, LONGEST_PAUSE_S) or FIRST_PAUSE_S
        self._pause_s = longer
        pause_s = max(longer, retry_after_s)
        self._timer = self.clock.callLater(pause_s, self._resume)

    def reset(self) -> None:
        """Note that something got through: all is well again."""
        if self.began_at is not None:
            self.began_at = None
            self._pause_s = 0.0
            self.stop()

    def stop(self) -> None:
        """Leave no timer behind."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def requeue(self, parts: list[Part], cause: Cause, *, shared: bool) -> None:
        """
        Return *parts* of one batch to the queue, as the upstream took no work.

        Those whose time to wait is over hear why, also among those that have
        not been tried: no call waits for ever.  A response of the upstream reaches
        only callers who asked for it: that of a call that was alone in its
        request, or those who show the same credentials of their own in a
        *shared* one.
        """
        if not parts:
            return
        key = parts[0].call.lane_key
        theirs = _in_our_words(cause) if shared and not key.is_personal else cause
        timeout_s = self.timeouts().after(cause)
        asked_s = _pause_asked_for_s(cause)
        if asked_s > timeout_s or not is_for_all(cause, key):
            reject(parts, theirs)
            return
        self.observer.batch_requeued(cause)
        if not _is_away(cause) and not self.pauses:
            # What was in flight together is refused together: that is once.
            self.budget.limit.refused()
        self.failed(asked_s)
        if not shared and is_size_possible(cause):
            # It may be about this call only, so those that wait are next.
            came_at, serial = parts[0].priority
            parts[0].priority = (max(came_at, self.clock.seconds()), serial)

        def is_expired(part: Part) -> bool:
            return self._has_lasted(part.arrived_at, timeout_s)

        self.queue.requeue([part for part in parts if not is_expired(part)])
        reject([part for part in parts if is_expired(part)], theirs)
        self.queue.expire(is_expired, _in_our_words(cause))

    def wait_out(self, parts: list[Part], failed: Failed, *, shared: bool) -> None:
        """
        Return *parts* to the queue, as the upstream seems to be away behind a gateway.

        One of them may be what kills it: so a part that has failed like this
        several times is at fault, if others got through meanwhile.
        """
        was_well = self.began_at is None
        for part in parts:
            part.connection_failures += 1
        at_fault = [
            part
            for part in parts
            if was_well and part.connection_failures > QUARANTINE_AFTER
        ]
        if at_fault:
            log_failed(at_fault, failed.cause)
            reject(at_fault, refused_together(failed) if shared else failed.cause)
            self.failed()  # the next one would meet a server that is away
        others = [part for part in parts if part not in at_fault]
        self.requeue(others, failed.cause, shared=shared)

    def _has_lasted(self, arrived_at: float, timeout_s: float) -> bool:
        since = max(arrived_at, self.began_at or arrived_at)
        return self.clock.seconds() - since >= timeout_s

    def _resume(self) -> None:
        self._timer = None
        self.resume()


def is_for_all(cause: Cause, key: LaneKey) -> bool:
    """
    Return whether the upstream takes no work at all, or one client has no quota.

    Only a 429 can be about a quota; a server that says 503 is not there for
    any client.
    """
    if isinstance(cause, ProxyError) or not key.is_personal:
        return True
    return (
        cause.status != TOO_MANY_REQUESTS or _OVERLOADED.search(cause.body) is not None
    )


def is_size_possible(cause: Cause) -> bool:
    """Return whether a refusal may be about how much one request asks for."""
    return (
        isinstance(cause, Response)
        and cause.status == TOO_MANY_REQUESTS
        and _OVERLOADED.search(cause.body) is None
    )


def is_no_answer(failed: Failed, part: Part) -> bool:
    """Return whether a request with *part* found no room, or nothing to answer it."""
    return isinstance(failed.cause, CannotConnect) or (
        failed.is_no_room and is_for_all(failed.cause, part.call.lane_key)
    )


def _is_away(cause: Cause) -> bool:
    """Return whether the upstream is away, and not only full."""
    return isinstance(cause, ProxyError) or cause.status in GATEWAY


def _in_our_words(cause: Cause) -> ProxyError:
    """
    Make of a refusal what may be told to calls that were not refused alone.

    Never a 503: a published client repeats a POST answered with that for ever.
    """
    if isinstance(cause, ProxyError):
        return cause
    if _is_away(cause):
        return CannotConnect(
            f"the inference server does not answer (its gateway says {cause.status})"
        )
    message = (
        f"the inference server takes no work now (it answered {cause.status}); "
        "try again later"
    )
    return UpstreamFull(message, max(1, ceil(_pause_asked_for_s(cause))))


def _pause_asked_for_s(cause: Cause) -> float:
    """Read `Retry-After` in seconds, said as a number or a date; 0 if there is none."""
    if isinstance(cause, ProxyError):
        return 0.0
    said = _header(cause, b"retry-after")
    if said.isdigit():
        return float(said)
    try:
        until = parsedate_to_datetime(said.decode("latin-1"))
        now = parsedate_to_datetime(_header(cause, b"date").decode("latin-1"))
        return max((until - now).total_seconds(), 0.0)
    except (TypeError, ValueError):
        return 0.0


def _header(response: Response, wanted: bytes) -> bytes:
    found = (value for name, value in response.headers if name.lower() == wanted)
    return next(found, b"")
