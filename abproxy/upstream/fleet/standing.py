"""
Whether an inference server takes part, and how much of its share it gets.

One whose connection broke, or that cannot be reached, is out until it has answered
a question.  One that fails again and again, or is far slower than the others, is
out for a pause that grows from time to time, and then asked as well.  Who comes
back begins with a small share, as its caches are empty and its speed unknown.
"""

from collections.abc import Callable
from typing import ClassVar

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from abproxy.timer import Timer

__all__ = ["FAILURES_IN_A_ROW", "Standing"]

FAILURES_IN_A_ROW = 5
"""After so many requests in a row that failed a server is out."""

LATELY = 10
"""Over how many requests it is reckoned which part of them fails."""

FIRST_ASK_S, LONGEST_ASK_S = 0.05, 0.5
"""Pauses between questions to one that does not answer, in seconds."""

FIRST_OUT_S, LONGEST_OUT_S = 1.0, 30.0
"""How long one is out that answers, but badly, in seconds."""

CALM = 4
"""Times its last pause: after that a server is out for the first pause again."""

GROWS_S, GROWS_ANSWERS = 4.0, 32
"""After so many seconds, or good answers, who came back has its whole share."""

LEAST_SHARE = 0.1
"""Of its share, what it begins with."""

SHORT_S = 1.0
"""Who was away for less has not been restarted: it has its whole share at once."""


@define(kw_only=True, eq=False)
class Standing:
    """Whether one server is in or out, and what part of its share it gets."""

    name: str
    """What the log calls it."""

    clock: IReactorTime = field(repr=False)
    ask: Callable[[], Deferred[bool]] = field(repr=False)
    """Asks the server whether it answers; never fails."""

    on_change: Callable[[], None] = field(default=lambda: None, repr=False)
    """Called when it goes out, and when it is back."""

    on_silence: Callable[[], None] = field(init=False, default=lambda: None, repr=False)
    """Called when it goes out, or does not answer a question."""

    is_out: bool = field(default=False, init=False)
    is_away: bool = field(default=False, init=False)
    """Whether it is out because it does not answer at all."""

    why: str = field(default="", init=False)
    """Why it is out, or was last."""

    since: float = field(init=False)
    """Since when it is out or in."""

    heard_at: float = field(init=False)
    """When it has answered last; the clock's seconds."""

    failures: int = field(default=0, init=False)
    """Requests in a row that failed."""

    trouble: float = field(default=0.0, init=False)
    """Which part of its requests has failed lately."""

    blame: float = field(default=0.0, init=False)
    """Which part of its good answers lately had other rows than were asked for."""

    answers: int = field(default=0, init=False)
    """Good answers since it is in."""

    ejections: int = field(default=0, init=False)
    """How many times it went out."""

    _grows: bool = field(default=False, init=False)
    """Whether its share grows from a small one."""

    _ask_s: float = field(default=0.0, init=False)
    _out_s: float = field(default=0.0, init=False)
    _asking: Deferred[bool] | None = field(default=None, init=False, repr=False)
    _next: Timer = field(init=False, repr=False)
    _log: ClassVar[Logger] = Logger()

    def __attrs_post_init__(self) -> None:
        """Begin as one that takes part."""
        self.since = self.heard_at = self.clock.seconds()
        self._next = Timer(self.clock, self._ask)

    @property
    def part(self) -> float:
        """Return how much of its share it gets, from 0 to 1."""
        if self.is_out:
            return 0.0
        if not self._grows:
            return 1.0
        passed_s = self.clock.seconds() - self.since
        part = max(passed_s / GROWS_S, self.answers / GROWS_ANSWERS, LEAST_SHARE)
        self._grows = part < 1
        return min(part, 1.0)

    def begin_small(self) -> None:
        """Let its share grow from a small one: it is new."""
        self.since, self._grows = self.clock.seconds(), True

    def answered(self) -> None:
        """Note a good answer."""
        self.failures = 0
        self.trouble -= self.trouble / LATELY
        self.blame -= self.blame / LATELY
        self.answers += 1
        self.heard_at = self.clock.seconds()
        if self.is_away:
            self.stop()
            self._come_back()

    def failed(self) -> None:
        """Note a request that failed."""
        self.failures += 1
        self.trouble += (1 - self.trouble) / LATELY

    def blamed(self) -> None:
        """Note that the last answer had other rows than were asked for."""
        self.blame += 1 / LATELY

    def lost(self, why: str) -> None:
        """Take it out until it has answered a question, which is asked at once."""
        self.is_away = True
        if not self.is_out:
            self._go_out(why)
            self._ask_s = 0.0
            self._ask()

    def eject(self, why: str) -> None:
        """Take it out for a pause that grows if this happens again soon."""
        if self.is_out:
            return
        in_s = self.clock.seconds() - self.since
        is_calm = in_s > max(CALM * self._out_s, FIRST_OUT_S)
        self._out_s = FIRST_OUT_S if is_calm else min(2 * self._out_s, LONGEST_OUT_S)
        self._out_s = max(self._out_s, FIRST_OUT_S)
        self._go_out(why)
        self._ask_in(self._out_s)
        self.on_silence()

    def doubt(self) -> None:
        """Ask it now, as it may be away: if so, it is out."""
        if self._asking is None and self._next.pending is None:
            self._ask()

    def stop(self) -> None:
        """Ask no more."""
        self._next.cancel()
        asking, self._asking = self._asking, None
        if asking is not None:
            asking.cancel()

    def _go_out(self, why: str) -> None:
        self.is_out, self.why, self.since = True, why, self.clock.seconds()
        self.ejections += 1
        self._log.warn(
            "The inference server {name} is out: {why}", name=self.name, why=why
        )
        self.on_change()

    def _ask_in(self, pause_s: float) -> None:
        self.stop()
        self._next.set(pause_s)

    def _ask(self) -> None:
        self.stop()
        asking = self._asking = self.ask()
        asking.addCallback(self._heard, asking)

    def _heard(self, answers: bool, asking: Deferred[bool]) -> None:  # noqa: FBT001
        if self._asking is not asking:
            return
        self._asking = None
        if answers:
            self.heard_at = self.clock.seconds()
            if self.is_out:
                self._come_back()
            return
        self.is_away = True
        self._ask_s = min(2 * self._ask_s, LONGEST_ASK_S) or FIRST_ASK_S
        self._ask_in(self._ask_s)
        if not self.is_out:
            self._go_out("it does not answer")
        self.on_silence()

    def _come_back(self) -> None:
        now = self.clock.seconds()
        out_s = now - self.since
        self._grows = out_s >= SHORT_S
        self.is_out, self.is_away, self.since = False, False, now
        # One more failure is one too many.
        self.failures, self.answers = min(self.failures, FAILURES_IN_A_ROW - 1), 0
        self._ask_s = 0.0
        self._log.info(
            "The inference server {name} is back after {s} s",
            name=self.name,
            s=f"{out_s:.1f}",
        )
        self.on_change()
