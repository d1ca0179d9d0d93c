"""
One request to a fleet, which may be sent to several of its servers.

What could not be sent at all goes elsewhere at once; what one server refuses, does
not answer, or answers with other rows goes elsewhere within a budget.  A connection
that breaks with a request in flight is told to the caller, who knows what may have
broken it.
"""

from collections.abc import Callable, Sequence
from itertools import count
from math import inf
from typing import cast

from attrs import define, field
from msgspec import Struct
from msgspec.structs import replace
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure
from twisted.web.http import OK

from abproxy.dialects.routes import has_rows
from abproxy.errors import (
    CannotConnect,
    ConnectionBroken,
    HandshakeFailed,
    UpstreamTimeout,
)
from abproxy.events import Observer
from abproxy.http.messages import GATEWAY, NO_ROOM, QUICK_S, Response, UpstreamRequest
from abproxy.upstream.fleet.hedging import Hedging
from abproxy.upstream.fleet.member import DENIED, Member
from abproxy.upstream.fleet.work import Attempt, work_of

__all__ = ["Choose", "FleetSender"]

RETRIES = 0.2
"""
Requests that may be sent elsewhere after a refusal, for each that is sent.

Where few are sent it is as many in a second: that is no load for any server.
"""

MOST_RETRIES = 10.0
"""Of these, how many may be saved up, and are there at first."""

FEW_RETRIES = 5.0
"""
With fewer left, one that has no room for anything must not go on to use them up.

Nor may callers with wrong keys, so that refusals can be sent elsewhere beside them.
"""

OTHER_MODEL = "the inference server that was asked has another model by now"

Choose = Callable[[float, int, Sequence[Member], bool], Member | None]
"""
Returns who gets so much work with so many inputs, but none of those tried.

The last argument is whether it has to have room for them.
"""


class _Sending(Struct, eq=False):
    """A request, and what has become of it so far."""

    request: UpstreamRequest
    learns: bool
    is_batch: bool
    due_at: float
    late_at: float = inf
    """When what was sent last is late; the clock's seconds."""

    answer: Deferred[Response] | None = None
    tried: list[Member] = []
    open: dict[int, Deferred[Response]] = {}
    """What is under way, by the number of the attempt."""

    outcome: Response | Failure | None = None
    """What one server made of it, as long as others may do better."""

    denied: list[tuple[Member, int]] = []
    """Those that have denied it, and how."""

    timer: IDelayedCall | None = None
    """When it is sent a second time."""

    is_over: bool = False


@define(kw_only=True, eq=False)
class FleetSender:
    """Sends requests to servers that are chosen for each."""

    clock: IReactorTime = field(repr=False)
    timeout_s: float
    """How long a request may take, wherever it is sent, in seconds."""

    choose: Choose = field(repr=False)

    began: Callable[[Member], None] = field(repr=False)
    """Called with each server that gets a batch."""

    ended: Callable[[Member], None] = field(repr=False)
    """Called with each server that is through with a request."""

    hedging: Hedging = field(factory=Hedging)
    observer: Observer = field(factory=Observer, repr=False)

    _open: dict[_Sending, None] = field(init=False, factory=dict, repr=False)
    """Batches without an answer, the oldest first."""

    _retries: float = field(init=False, default=MOST_RETRIES)
    _sent_at: float = field(init=False, default=inf)
    """When a batch was sent last; the clock's seconds."""

    _serial: "count[int]" = field(init=False, factory=lambda: count(1), repr=False)

    def send(
        self, request: UpstreamRequest, *, learns: bool = True, is_batch: bool = True
    ) -> Deferred[Response]:
        """
        Send *request* to one server, and elsewhere if that is of use.

        Cancelling closes the connections of all that is under way for it.

        Args:
            request: what to send.
            learns: whether its outcome may tell that the limits have changed.
            is_batch: whether it is measured and traced as a batch.

        Raises:
            UpstreamTimeout: no whole response within the deadline, wherever.
            UpstreamBroken: no connection, or no usable response.
        """
        due_at = self.clock.seconds() + self.timeout_s
        sending = _Sending(request, learns, is_batch, due_at)
        answer = sending.answer = Deferred(lambda _answer: self._stop(sending))
        member = self._choose_for(sending)
        if member is None:
            return fail(CannotConnect("no inference server is known for this model"))
        if is_batch:
            self._save_up()
            self.hedging.began(work_of(request))
            self._open[sending] = None
        self._try(sending, member)
        after_s = self.hedging.after_s if is_batch else None
        if after_s is not None and not sending.is_over:
            sending.timer = self.clock.callLater(after_s, self._hedge, sending)
        return answer

    def _save_up(self) -> None:
        now = self.clock.seconds()
        more = RETRIES * max(1.0, now - self._sent_at)
        self._retries, self._sent_at = min(self._retries + more, MOST_RETRIES), now

    def rescue(self, member: Member) -> None:
        """Send elsewhere as well what *member* does not answer, as far as allowed."""
        for sending in list(self._open):
            if self._retries < 1:
                return
            is_there = [sending.tried[at] is member for at in sending.open]
            if is_there == [True] and self._try_another(sending, needs_room=True):
                self._retries -= 1

    def look(self) -> None:
        """Send elsewhere as well what is late by far, as far as allowed."""
        now = self.clock.seconds()
        for sending in list(self._open):
            if self._retries <= FEW_RETRIES:
                return
            is_late = now >= sending.late_at and len(sending.open) == 1
            if is_late and self._try_another(sending, needs_room=True):
                self._retries -= 1

    def _hedge(self, sending: _Sending) -> None:
        sending.timer = None
        work = work_of(sending.request)
        may = len(sending.open) == 1 and self.hedging.may(work)
        if may and self._try_another(sending, "hedge", needs_room=True):
            self.hedging.sent(work)

    def _choose_for(
        self,
        sending: _Sending,
        unfit: Sequence[Member] = (),
        *,
        needs_room: bool = False,
    ) -> Member | None:
        request, tried = sending.request, [*sending.tried, *unfit]
        return self.choose(work_of(request), request.items, tried, needs_room)

    def _try_another(
        self,
        sending: _Sending,
        reason: str = "elsewhere",
        *,
        unfit: Sequence[Member] = (),
        needs_room: bool,
    ) -> bool:
        """Send it to one neither tried nor *unfit*; return whether there is one."""
        other = self._choose_for(sending, unfit, needs_room=needs_room)
        if other is None:
            return False
        if sending.is_batch:
            self.observer.extra_request(reason)
            sending.tried[-1].sent_elsewhere[reason] += 1
        self._try(sending, other)
        return True

    def _try(self, sending: _Sending, member: Member) -> None:
        request, number = sending.request, len(sending.tried)
        if number:
            request = replace(request, resends=request.resends + number)
        sending.tried.append(member)
        member.tried = next(self._serial)
        attempt = Attempt(work_of(request), request.items, self.clock.seconds())
        if sending.is_batch:
            member.work.begin(attempt)
            sending.late_at = member.work.late_at(attempt)
            self.began(member)
        try:
            sent = member.upstream.send(
                request,
                learns=sending.learns,
                is_batch=sending.is_batch,
                due_at=sending.due_at,
            )
        except Exception:  # noqa: BLE001  a bug, as if it came with the Deferred
            sent = fail(Failure())
        sending.open[number] = sent
        sent.addBoth(self._ended, sending, number, attempt)

    def _ended(
        self,
        outcome: Response | Failure,
        sending: _Sending,
        number: int,
        attempt: Attempt,
    ) -> None:
        """Learn from the *outcome* at one server, and hand it on or try another."""
        member = sending.tried[number]
        del sending.open[number]
        is_good = _has_rows(outcome, sending) and not member.refused
        if sending.is_batch:
            member.note(outcome, attempt)
            _note_denials(member, outcome, sending, is_good=is_good)
            if _is_good(outcome) and member.refused:
                # Its rows may be of another model by now.
                outcome = Failure(CannotConnect(OTHER_MODEL))
            elif _is_good(outcome) and not is_good:
                member.blamed()
        elif isinstance(outcome, Failure):
            member.note_failure(outcome.value)
        self.ended(member)
        if sending.is_over:
            return
        if is_good:
            self.hedging.answered(self.clock.seconds() - attempt.sent_at)
        elif self._goes_elsewhere(outcome, sending, member, attempt):
            if self._retries < FEW_RETRIES and _has_no_room(outcome):
                member.full_too_often()
            return
        elif sending.open:
            # Another one may do better.
            sending.outcome = _telling(sending.outcome, outcome)
            return
        self._tell(outcome, sending)

    def _goes_elsewhere(
        self,
        outcome: Response | Failure,
        sending: _Sending,
        member: Member,
        attempt: Attempt,
    ) -> bool:
        """Send it elsewhere if that is of use, and return whether it is."""
        if not self._may_go_elsewhere(outcome, sending, member, attempt):
            return False
        former, sending.outcome = sending.outcome, _telling(sending.outcome, outcome)
        is_refusal, is_denial = isinstance(outcome, Response), _is_denial(outcome)
        unfit: list[Member] = []
        if is_denial:
            path = sending.request.path
            unfit = [each for each in member.others() if not each.answers(path)]
        # A refusal is tried again later, but a denial is the end.
        needs_room = is_refusal and not is_denial
        if not self._try_another(sending, unfit=unfit, needs_room=needs_room):
            sending.outcome = former
            return False
        if is_refusal and not (is_denial and member.denies):
            self._retries -= 1
        return True

    def _may_go_elsewhere(
        self,
        outcome: Response | Failure,
        sending: _Sending,
        member: Member,
        attempt: Attempt,
    ) -> bool:
        now = self.clock.seconds()
        if now >= sending.due_at or sending.open:
            return False
        if isinstance(outcome, Failure):
            unsent = outcome.check(CannotConnect, HandshakeFailed)
            # Our own questions change nothing, however often they are asked.
            is_harmless = not sending.is_batch and outcome.check(ConnectionBroken)
            return bool(unsent or is_harmless)
        if _is_denial(outcome):
            may = member.denies or self._retries > FEW_RETRIES
            return sending.is_batch and may
        is_away = outcome.status in GATEWAY and now - attempt.sent_at < QUICK_S
        is_elsewhere_better = outcome.status in NO_ROOM or is_away or _is_good(outcome)
        return is_elsewhere_better and self._retries >= 1

    def _tell(self, outcome: Response | Failure, sending: _Sending) -> None:
        if not _is_good(outcome):
            outcome = _telling(sending.outcome, outcome)
        self._stop(sending)
        cast("Deferred[Response]", sending.answer).callback(outcome)

    def _stop(self, sending: _Sending) -> None:
        """Stop all that is still under way for it."""
        sending.is_over = True
        self._open.pop(sending, None)
        if sending.timer is not None:
            sending.timer.cancel()
            sending.timer = None
        for sent in list(sending.open.values()):
            sent.cancel()


def _has_no_room(outcome: Response | Failure) -> bool:
    return isinstance(outcome, Response) and outcome.status in NO_ROOM


def _is_denial(outcome: Response | Failure | None) -> bool:
    return isinstance(outcome, Response) and outcome.status in DENIED


def _is_good(outcome: Response | Failure) -> bool:
    return isinstance(outcome, Response) and outcome.status == OK


def _has_rows(outcome: Response | Failure, sending: _Sending) -> bool:
    """Return whether it is a good answer, to a batch with a row for each input."""
    if not isinstance(outcome, Response) or outcome.status != OK:
        return False
    request = sending.request
    return not sending.is_batch or has_rows(request.path, outcome.body, request.items)


def _note_denials(
    member: Member, outcome: Response | Failure, sending: _Sending, *, is_good: bool
) -> None:
    """Note who has denied what *member* has answered now, or that it has as well."""
    if is_good:
        member.answered(sending.request.path)
        for each, status in sending.denied:
            each.denied(status)
    elif isinstance(outcome, Response) and _is_denial(outcome):
        sending.denied.append((member, outcome.status))


def _telling(
    former: Response | Failure | None, outcome: Response | Failure
) -> Response | Failure:
    """
    Return what tells more: an answer, unless all the time has been used up.

    A denial does not, as it may be the fault of who gave it; nor that there was no
    connection, where another one broke, perhaps by the request.
    """
    is_final = isinstance(outcome, Response) or outcome.check(UpstreamTimeout)
    if is_final or former is None or _is_denial(former):
        return outcome
    if isinstance(former, Failure) and former.check(CannotConnect, HandshakeFailed):
        return outcome
    return former
