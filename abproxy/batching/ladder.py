"""
The ladder: how many batches that are not full may be in flight, found by trial.

On the lowest rung it is one, and the next is held for callers about to return;
on the highest all leave at once.  Which rung suits a server and its load shows in
one figure, the mean stay of a call, in the queue and at the server: with a given
number of clients it is their number over the throughput, and with a given rate it
is the latency.  How long an answer takes tells less: with one batch in flight, a
server that works on one request at a time and a fleet of sixteen answer alike.

So another rung is tried now and then, between two looks at the present one, and
kept if calls stay for less.  Of two rungs that are as good the lower one is
better, because it makes fewer requests.  A trial costs something, so that it is
broken off when it goes badly, and a rung that lost is tried again ever later.

All stays are logarithms: a difference of 0.03 is one of 3 %.
"""

from math import exp, inf, log, sqrt

from attrs import define, field, frozen

__all__ = ["FIRST", "RUNGS", "Ladder", "Rung", "Turn"]


@frozen
class Rung:
    """One degree of freedom to leave."""

    slots: int
    """How many batches may be in flight that were not full."""

    holds: bool = False
    """Whether the next one is held for callers about to return."""


RUNGS = (Rung(1, holds=True), Rung(2), Rung(4), Rung(8), Rung(32), Rung(512))
FIRST, TOP = 3, len(RUNGS) - 1

BETTER = 0.03
"""The gain for which it is worth to change."""

CLEAR = 0.25
"""The gain that is believed after one trial, and the loss that is certain."""

WORSE = 0.12
"""The loss after which a change to a lower rung is taken back."""

LOST = log(1.5)
"""The loss at which a trial is broken off."""

TROUBLED, CHANGED = 0.2, 0.47
"""Stays that differ so much from the usual: no time for trials; a new situation."""

LEAST_CALLS, MOST_CALLS = 16, 256
"""Calls in a look."""

ROUGH, SMOOTH = 0.15, 0.02
"""Looks that differ by more get longer, and by less shorter."""

MEMORY = 8
"""Over how many looks a figure is made."""

LEAST_NOISE = 0.01
MOST_TRIALS = 16
"""After so many trials a rung counts as known."""

SOON, LATE = 4, 4096
"""Looks until a rung is tried again, at least and at most."""

CALM, FIRST_CALM, FAR, LONG_CALM = 8, 16, 16, 48
"""
Looks: without a trial, until odd ones count, and until far rungs are tried though
callers do not return, for the first time and again; and after a change until far
ones are tried.
"""

NEAR = 2
"""Rungs from one that lost to others that are thought to lose as well."""

ODD = 3
"""Looks in a row that tell of a new situation."""


@define(eq=False)
class Experience:
    """The results of trials of one rung, compared with the present one."""

    gain: float = 0.0
    trials: int = 0
    pause: int = SOON
    """For how many looks the rung was left alone last."""

    due: int = 0
    """The look from which on it may be tried."""

    def doubt(self, noise: float) -> float:
        """Return how far *gain* may be from the truth."""
        return 2 * max(noise, LEAST_NOISE) / sqrt(self.trials)

    def add(self, gain: float) -> None:
        """Add the result of one more trial."""
        self.trials += 1
        self.gain += (max(-2.0, min(gain, 2.0)) - self.gain) / self.trials

    def put_off(self, look: int, times: int) -> None:
        """Try it again only after so many *times* as many looks as last."""
        self.pause = min(self.pause * times, LATE)
        self.due = look + self.pause


@define(eq=False)
class Trial:
    """A trial: a look at the present rung, one at another, and one more."""

    rung: int
    before: float
    stay: float | None = None
    """On the rung that is tried; None until that was looked at."""

    @property
    def is_lost(self) -> bool:
        """Return whether it went so badly that it had to be broken off."""
        return self.stay is not None and self.stay > self.before + LOST


@define(eq=False)
class Departure:
    """A rung that was left for a lower one, which may turn out to be worse."""

    rung: int
    stay: float
    until: int
    """The look after which it is forgotten."""


@define(eq=False)
class Turn:
    """The permission to try another rung; the only ladder always has it."""

    def take(self) -> bool:
        """Acquire the turn, and return whether that was possible."""
        return True

    def give_back(self) -> None:
        """Release the turn, as the trial is over."""


@define(eq=False)
class Ladder:
    """The rungs: the present one, and the one that is tried."""

    rung: int = FIRST
    """The present one, apart from a trial."""

    turn: Turn = field(factory=Turn)

    calls: int = LEAST_CALLS
    """How many calls a look takes: more where looks differ."""

    trial: Trial | None = field(default=None, init=False)
    looks: int = field(default=0, init=False)
    trials: int = field(default=0, init=False)
    known: list[Experience] = field(
        init=False, factory=lambda: [Experience() for _ in RUNGS]
    )
    _noise: float = field(default=0.1, init=False)
    """How much two looks at the same rung differ."""

    _last: float | None = field(default=None, init=False)
    _usual: float | None = field(default=None, init=False)
    _calm: int = field(default=0, init=False)
    _odd: int = field(default=0, init=False)
    _left: Departure | None = field(default=None, init=False)

    @property
    def is_trying(self) -> bool:
        """Return whether another rung is in force at the moment."""
        return self.trial is not None and self.trial.stay is None

    @property
    def on(self) -> int:
        """Return the rung in force."""
        return self.trial.rung if self.trial and self.is_trying else self.rung

    @property
    def looks_to_trial(self) -> int:
        """Return after how many looks a rung is tried, if all stays as it is."""
        due = (k.due for rung, k in enumerate(self.known) if rung != self.rung)
        return max(min(due) - self.looks, 0)

    @property
    def lost_s(self) -> float:
        """Return the mean stay at which a trial goes so badly that it is broken off."""
        if self.trial is None or self.trial.stay is not None:
            return inf
        return exp(self.trial.before + LOST)

    def look(self, stay: float, *, binds: bool, may_leap: bool) -> None:
        """
        Learn from one look, and decide on which rung the next one is.

        Args:
            stay: the logarithm of the mean stay of a call.
            binds: whether a batch had to wait for a slot; if none had, all is as it
                would be on a higher rung.
            may_leap: whether far rungs may be tried, as callers wait for an answer
                before they call again, which bounds the harm.
        """
        self.looks += 1
        trial = self.trial
        if trial is None:
            self._compare(self._last, stay)
        elif trial.stay is None:
            self._end_look_at_trial(trial, stay)
            return
        else:
            self._end_trial()
            gain = (trial.before + stay) / 2 - trial.stay
            if gain > -CLEAR:
                self._compare(trial.before, stay)
            if abs(trial.before - stay) > CLEAR and not trial.is_lost:
                # So much has changed meanwhile that it tells nothing.
                self.known[trial.rung].due = self.looks + SOON
            elif self._judge(trial, gain):
                return
        self._last = stay
        if not self._go_back(stay):
            self._notice(stay)
            self._try_next(stay, binds=binds, may_leap=may_leap)

    # One trial

    def _end_look_at_trial(self, trial: Trial, stay: float) -> None:
        trial.stay = stay
        self.trials += 1
        gain = trial.before - stay
        is_first = not self.known[trial.rung].trials
        if is_first and gain >= max(CLEAR, 2 * self._noise):
            self._end_trial()
            self._judge(trial, gain)

    def _end_trial(self) -> None:
        self.trial = None
        self.turn.give_back()

    def _judge(self, trial: Trial, new_gain: float) -> bool:
        """Return whether the rung that was tried is the present one now."""
        rung, known = trial.rung, self.known[trial.rung]
        known.add(new_gain)
        gain, doubt = known.gain, known.doubt(self._noise)
        if gain > max(BETTER, doubt) or self._is_as_good(rung, doubt):
            self._move(rung, trial.before)
            return True
        if trial.is_lost or gain < -max(BETTER, 2 * doubt):
            known.put_off(self.looks, 64)
            if abs(rung - self.rung) <= NEAR:
                self._put_off_beyond(rung)
        elif gain < 0 or doubt < BETTER or known.trials >= MOST_TRIALS:
            is_worse = gain < -max(BETTER, doubt)
            known.put_off(self.looks, 8 if is_worse else 2 if doubt > BETTER else 4)
        else:
            known.due = self.looks + 1
        return False

    def _is_as_good(self, rung: int, doubt: float) -> bool:
        known = self.known[rung]
        if rung > self.rung:
            return False
        is_equal = doubt < BETTER and known.gain > -BETTER / 3
        return is_equal or (known.gain > 0 and known.trials > 1)

    def _put_off_beyond(self, rung: int) -> None:
        beyond = range(rung, TOP + 1) if rung > self.rung else range(rung + 1)
        for each in beyond:
            known = self.known[each]
            known.due = max(known.due, self.known[rung].due)

    # Moves

    def _move(self, rung: int, stay: float | None) -> None:
        """Change to *rung*, with so long a *stay* on the one before."""
        left, gain = self.rung, self.known[rung].gain
        self._left = None
        if rung < left and stay is not None:
            self._left = Departure(left, stay, self.looks + LONG_CALM)
        self.rung = rung
        self._last = self._usual = None
        for known in self.known:
            known.gain -= gain
        self.known[left].trials = self.known[rung].trials
        self.known[left].put_off(self.looks, 64 if gain > LOST else 8)
        for each in (rung - 1, rung + 1):
            if 0 <= each <= TOP and each != left and self.known[each].gain > -CLEAR:
                self.known[each].due = self.looks

    def _go_back(self, stay: float) -> bool:
        """
        Return to the rung before if this one is worse than it was, after all.

        Some harm takes longer than a trial: those who were answered together call
        again together, and more and more of them do.
        """
        left = self._left
        if left is None or self.looks > left.until:
            return False
        if stay < left.stay + max(WORSE, 3 * self._noise):
            return False
        here, self.known[left.rung].gain = self.rung, stay - left.stay
        self._move(left.rung, None)
        self.known[here].put_off(self.looks, 64)
        return True

    # What is usual

    def _compare(self, one: float | None, other: float) -> None:
        """Learn by how much two looks at the same rung differ."""
        if one is None:
            return
        self._noise += (min(abs(one - other), 0.5) - self._noise) / MEMORY
        if self._noise > ROUGH:
            self.calls = min(self.calls * 2, MOST_CALLS)
        elif self._noise < SMOOTH:
            self.calls = max(self.calls // 2, LEAST_CALLS)

    def _notice(self, stay: float) -> None:
        """Forget what was learnt if looks are not as usual, and no trial is why."""
        self._calm += 1
        if self._usual is None:
            self._usual = stay
        if abs(stay - self._usual) <= max(CHANGED, 3 * self._noise):
            self._usual += (stay - self._usual) / MEMORY
            self._odd = 0
        elif self._calm > CALM:
            self._odd += 1
        if self._odd == ODD:
            self._odd, self._usual = 0, stay
            self.known = [Experience() for _ in RUNGS]
            for rung, known in enumerate(self.known):
                is_near = abs(rung - self.rung) == 1
                known.due = self.looks + (0 if is_near else FAR)

    def _try_next(self, stay: float, *, binds: bool, may_leap: bool) -> None:
        """Try the rung that promises most, if one is due and nothing is wrong."""
        is_new = not (self.known[0].trials and self.known[TOP].trials)
        is_quiet = self._calm > (FIRST_CALM if is_new else LONG_CALM)
        farthest = TOP if may_leap or is_quiet else 1
        lowest = max(self.rung - farthest, 0)
        highest = min(self.rung + farthest, TOP) if binds else self.rung
        due = [
            rung
            for rung in range(lowest, highest + 1)
            if rung != self.rung and self.known[rung].due <= self.looks
        ]
        is_usual = self._usual is not None and stay < self._usual + TROUBLED
        if due and (is_usual or self._calm > CALM) and self.turn.take():
            self._calm = 0
            self.trial = Trial(max(due, key=self._promise), stay)

    def _promise(self, rung: int) -> float:
        """Return what a trial may bring: the ends tell most, then those nearby."""
        known = self.known[rung]
        if known.trials:
            return known.gain + known.doubt(self._noise)
        if rung in (0, TOP):
            return 20 + rung
        return 10 - abs(rung - self.rung) + rung / 10
