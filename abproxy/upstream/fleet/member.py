"""One server of a fleet: what it has to do, and what its answers tell of it."""

from collections import Counter
from collections.abc import Callable
from math import inf
from typing import Any, ClassVar

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import OK
from twisted.web.iweb import IAgent

from abproxy.errors import (
    CannotConnect,
    ConnectionBroken,
    HandshakeFailed,
    ProxyError,
)
from abproxy.events import ServerState
from abproxy.http.messages import GATEWAY, NO_ROOM, Response
from abproxy.upstream.client import Upstream, name_of
from abproxy.upstream.endpoints import address_of
from abproxy.upstream.fleet.standing import FAILURES_IN_A_ROW, Standing
from abproxy.upstream.fleet.work import LATE_S, Attempt, Work

__all__ = ["DENIED", "Member"]

FIRST_FULL_S, LONGEST_FULL_S = 0.05, 0.2
"""For how long one that has no room is left out, in seconds."""

LITTLE_TROUBLE = 0.2
"""The part of requests that may fail where nothing is wrong with a server."""

MUCH_BLAME = 0.3
"""The part of answers with wrong rows that is too much, unless others give half."""

IDLE_S = 10.0
"""After so long without an answer one without work is asked, in seconds."""

UNREACHED = (CannotConnect, HandshakeFailed, ConnectionBroken)
"""How a server fails that may be away: it has to answer a question first."""

DENIED = frozenset({301, 302, 303, 307, 308, 401, 403, 404})
"""Answers of one that is no such server or takes no key, if others do better."""

FAILED = frozenset({424, 500, *GATEWAY})
"""Answers that are the server's fault, and may be so only at this one."""

LATELY_S = 600.0
"""How long a good answer tells that a server answers such calls, in seconds."""

MANY_PATHS = 32
"""Of so many paths it is kept when a server has answered."""


@define(kw_only=True, eq=False)
class Member:
    """One server of a fleet."""

    upstream: Upstream
    work: Work
    standing: Standing

    others: Callable[[], "list[Member]"] = field(default=list, repr=False)
    """Returns those that take part, but for itself."""

    drained_at: float | None = field(default=None, init=False)
    """Since when the operator wants nothing more to be sent there; None if he does."""

    refused: str = field(default="", init=False)
    """Why it gets nothing, if it has another model than is served."""

    is_unsure: bool = field(default=False, init=False)
    """Whether it has to say first which model it has, as others have said it."""

    is_leaving: bool = field(default=False, init=False)
    """Whether it is to be forgotten when its last request is over."""

    tried: int = field(default=0, init=False)
    """The number of the request that was sent there last."""

    relayed: int = field(default=0, init=False)
    """Relayed requests that are under way."""

    outcomes: Counter[str] = field(init=False, factory=Counter)
    """How many batches it has answered, or not, by status or kind of failure."""

    sent_elsewhere: Counter[str] = field(
        init=False, factory=lambda: Counter(elsewhere=0, hedge=0)
    )
    """How many that it had were sent to another one as well, by the reason."""

    last_error: tuple[float, str] | None = field(init=False, default=None)
    """When it has failed last, and how; the clock's seconds."""

    denies: bool = field(default=False, init=False)
    """Whether it has denied what another one answered, and answered nothing since."""

    full_until: float = field(default=-inf, init=False)
    _answered_at: dict[bytes, float] = field(init=False, factory=dict, repr=False)
    """When it has given the last good answer, by path; the clock's seconds."""

    _log: ClassVar[Logger] = Logger()
    _full_s: float = field(default=0.0, init=False)

    @property
    def base_url(self) -> str:
        """Return where it is."""
        return self.upstream.base_url

    @property
    def address(self) -> str:
        """Return what operators call it."""
        return address_of(self.upstream.name)

    @property
    def is_drained(self) -> bool:
        """Return whether the operator wants nothing more to be sent there."""
        return self.drained_at is not None

    def drain(self, *, is_drained: bool) -> None:
        """Note that the operator wants nothing more to be sent there, or again."""
        if is_drained == self.is_drained:
            return
        self.drained_at = self.work.clock.seconds() if is_drained else None
        now = "gets no new requests" if is_drained else "gets requests again"
        message = (
            "The inference server {name} {now}: the operator wants it so; "
            "in flight: {n}"
        )
        n = self.work.requests + self.relayed
        self._log.info(message, name=self.upstream.name, now=now, n=n)

    @property
    def state(self) -> ServerState:
        """Return what it gets, and why."""
        applies = {
            ServerState.LEAVING: self.is_leaving,
            ServerState.DRAINED: self.is_drained,
            ServerState.OTHER_MODEL: bool(self.refused),
            ServerState.OUT: self.standing.is_out,
            ServerState.MODEL_UNKNOWN: self.is_unsure,
            ServerState.FULL: self.work.clock.seconds() < self.full_until,
            ServerState.GROWING: self.standing.part < 1,
            ServerState.UP: True,
        }
        return next(state for state, is_so in applies.items() if is_so)

    @property
    def agent(self) -> IAgent:
        """Return what relayed requests are sent with."""
        return self.upstream.agent

    def is_suspect(self, now: float) -> bool:
        """Return whether it should be asked if it is still there."""
        standing, work = self.standing, self.work
        if work.requests:
            return work.silent_s > LATE_S and work.late_by(work.measured) > 1
        return now - standing.heard_at > IDLE_S

    def close_idle(self) -> Deferred[Any]:
        """Close the connections without a request; fires when they are closed."""
        return self.upstream.close_idle()

    def describe(self, shares: float) -> dict[str, Any]:
        """
        Return what the status says of it; times are the clock's seconds.

        Args:
            shares: the sum of the shares of all.
        """
        work, standing, info = self.work, self.standing, self.upstream.info
        at, message = self.last_error or (None, None)
        return {
            "address": self.address,
            "state": self.state.value,
            "why": self._why,
            "since": standing.since if self.drained_at is None else self.drained_at,
            "model": info.model,
            "version": info.version,
            "max_batch_inputs": info.max_batch_inputs,
            "max_inputs_in_flight": info.max_inputs_in_flight,
            "weight": work.weight,
            "requests_in_flight": work.requests + self.relayed,
            "inputs_in_flight": work.items,
            "inputs_per_s": work.inputs_per_s,
            "share": work.share / shares,
            "last_error": message,
            "last_error_at": at,
            "outcomes": dict(self.outcomes),
            "sent_elsewhere": dict(self.sent_elsewhere),
            "ejections": standing.ejections,
        }

    @property
    def _why(self) -> str:
        """Return why it gets nothing; empty if it does, or as the operator says so."""
        if self.refused:
            return self.refused
        if self.standing.is_out:
            return self.standing.why
        return self.upstream.health.why if self.is_unsure else ""

    # What outcomes tell

    def note(self, outcome: Response | Failure, attempt: Attempt) -> None:
        """Learn from the *outcome* of a batch."""
        self.outcomes[name_of(outcome)] += 1
        if isinstance(outcome, Failure):
            is_error = not outcome.check(CancelledError)
            self.work.end(attempt, is_good=False, is_error=is_error)
            self.note_failure(outcome.value)
            return
        is_good = outcome.status == OK
        self.work.end(attempt, is_good=is_good, is_error=not is_good)
        if is_good:
            self._full_s, self.full_until = 0.0, -inf
            self.standing.answered()
            return
        why = f"it answers with {outcome.status}"
        if outcome.status in NO_ROOM:
            self._note_error(why)
            self._note_full()
        elif outcome.status in FAILED:
            self._note_error(why)
            self._failed(why)

    def answers(self, path: bytes) -> bool:
        """Return whether it has answered calls at *path* well lately."""
        since = self.work.clock.seconds() - LATELY_S
        return self._answered_at.get(path, -inf) >= since

    def answered(self, path: bytes) -> None:
        """Note a good answer to a call at *path*."""
        if path not in self._answered_at and len(self._answered_at) >= MANY_PATHS:
            self._answered_at.clear()
        self._answered_at[path] = self.work.clock.seconds()
        self.denies = False

    def denied(self, status: int) -> None:
        """Note that it has answered with *status* what another one answered well."""
        self.denies = True
        why = f"it answers with {status}"
        self._note_error(why)
        self._failed(why)

    def note_failure(self, error: BaseException | None) -> None:
        """Learn from the *error* that a request has met."""
        if isinstance(error, ProxyError):
            self._note_error(str(error))
        if isinstance(error, UNREACHED):
            self.standing.lost(str(error))
        elif isinstance(error, ProxyError):
            self._failed(str(error))

    def full_too_often(self) -> None:
        """Note that its refusals are about to use up what may be sent elsewhere."""
        if not self.work.requests:
            # With nothing to do it should have room.
            self._failed("it has no room though it has nothing to do")

    def blamed(self) -> None:
        """Note that an answer of it had other rows than were asked for."""
        standing, others = self.standing, self.others()
        standing.blamed()
        usual = sum([each.standing.blame for each in others])
        if standing.blame > MUCH_BLAME and usual * 2 < MUCH_BLAME * len(others):
            standing.eject("its answers cannot be shared out")

    def _note_error(self, why: str) -> None:
        self.last_error = self.work.clock.seconds(), why

    def _note_full(self) -> None:
        """Leave it out for a moment: it has no room."""
        now = self.work.clock.seconds()
        if now >= self.full_until:
            self._full_s = min(2 * self._full_s, LONGEST_FULL_S) or FIRST_FULL_S
            self.full_until = now + self._full_s

    def _failed(self, why: str) -> None:
        self.standing.failed()
        others = self.others()
        # What fails everywhere is due to what is asked.
        trouble = sum([each.standing.trouble for each in others])
        are_better = trouble < LITTLE_TROUBLE * len(others)
        if self.standing.failures >= FAILURES_IN_A_ROW and are_better:
            self.standing.eject(f"{why}, {FAILURES_IN_A_ROW} times in a row")
