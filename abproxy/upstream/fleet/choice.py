"""
Which of several inference servers gets a request: who would answer it soonest.

That is the one whose work in flight, with this request, is the least for its speed,
of those that take part and have room for it.
"""

from collections.abc import Callable, Sequence
from random import Random
from statistics import median

from attrs import define, field

from abproxy.upstream.fleet.member import Member
from abproxy.upstream.fleet.work import (
    ENOUGH,
    OUTLIER,
    SILENT_S,
    TRUSTED_AFTER,
    TWICE,
    Work,
)
from abproxy.upstream.server_info import ServerInfo

__all__ = [
    "Choice",
    "find_outliers",
    "note_share",
    "soonest",
    "usual_speed",
    "with_a_share",
]

ALIKE = 1.1
"""Servers that take up to so many times as long as the best are chosen at random."""

SHARE_OVER = 50
"""Over how many requests a share is reckoned."""


def usual_speed(works: Sequence[Work]) -> float:
    """Return the speed of a server of weight 1, by what is measured of all *works*."""
    known = [work for work in works if work.answers]
    weight = sum([work.weight for work in known])
    return sum([work.measured for work in known]) / weight if weight else 1.0


def soonest(works: Sequence[Work], more: float, random: Random) -> int:
    """
    Return which of *works* would be done soonest with so much *more*.

    Those that hardly differ share what comes, by chance.
    """
    usual = usual_speed(works)
    takes_s = [work.takes_s(more, usual) for work in works]
    most_s = min(takes_s) * ALIKE
    return random.choice([at for at, each in enumerate(takes_s) if each <= most_s])


def with_a_share(members: Sequence[Member]) -> list[Member]:
    """
    Return those of *members* that have less than their share of the requests.

    That is bounded for one that gets only a part of it, and where it is known how
    fast all are, for one that is to have less than another, as the operator wants it.
    """
    weights = [each.work.weight for each in members]
    most, whole = max(weights), sum(weights)

    def may_have_more(member: Member) -> bool:
        work, part = member.work, member.standing.part
        is_bounded = work.weight < most and work.answers >= TRUSTED_AFTER
        if part >= 1 and not is_bounded:
            return True
        return work.share < part * work.weight / whole

    return [each for each in members if may_have_more(each)]


def find_outliers(works: Sequence[Work]) -> list[Work]:
    """
    Return those of *works* that take far longer than the others.

    Measured for what they do, and for how long they take to answer: one that gets
    little to do seems slower than it is, but answers as soon as the others.
    """
    known = [
        (each, each.took_s, each.measured / each.weight)
        for each in works
        if each.answers >= ENOUGH
    ]
    found = []
    for work in works:
        others = [(took_s, speed) for each, took_s, speed in known if each is not work]
        if others and _is_outlier(work, *zip(*others, strict=True)):
            found.append(work)
    return found


def _is_outlier(
    work: Work, others_took_s: Sequence[float], speeds: Sequence[float]
) -> bool:
    took_s, usual = median(others_took_s), median(speeds) * work.weight
    expected_s = max(took_s, work.expected_s(usual))
    if work.silent_s > max(SILENT_S, OUTLIER * TWICE * expected_s):
        return True
    # What takes long because it is much is no reason: it may be done any moment.
    is_slow = OUTLIER * work.at_best < usual
    return work.answers >= ENOUGH and is_slow and work.took_s > TWICE * took_s


def note_share(chosen: Work, works: Sequence[Work]) -> None:
    """Reckon the shares anew, as one more request goes to *chosen*."""
    for work in works:
        work.share *= 1 - 1 / SHARE_OVER
    chosen.share += 1 / SHARE_OVER


@define(kw_only=True, eq=False)
class Choice:
    """Chooses among the servers of a fleet."""

    members: Callable[[], Sequence[Member]] = field(repr=False)
    """Returns all of them."""

    taking_part: Callable[[], Sequence[Member]] = field(repr=False)
    """Returns those that get work."""

    permits_of: Callable[[ServerInfo], int] = field(repr=False)
    """Returns how many inputs may be in flight at the server that says this."""

    random: Random = field(factory=Random, repr=False)

    def choose(
        self,
        work: float,
        items: int,
        tried: Sequence[Member] = (),
        needs_room: bool = False,  # noqa: FBT001, FBT002  one place calls it
    ) -> Member | None:
        """
        Return where a request would be answered soonest, or None if nowhere.

        Args:
            work: how much it is.
            items: how many inputs it has.
            tried: servers that are not to get it.
            needs_room: whether one without room for it is of no use.
        """
        active = [each for each in self.taking_part() if each not in tried]
        if not active:
            return None if tried else self._least_bad()
        now = active[0].work.clock.seconds()
        ready = [each for each in active if now >= each.full_until]
        if needs_room and not ready:
            return None
        ready = ready or active
        roomy = [each for each in ready if self._has_room(each, items)]
        if not roomy:
            if needs_room:
                return None
            return max(ready, key=lambda each: self._permits(each) - each.work.items)
        fair = [each for each in with_a_share(active) if each in roomy] or roomy
        works = [each.work for each in fair]
        return fair[soonest(works, work, self.random)]

    def _permits(self, member: Member) -> int:
        return self.permits_of(member.upstream.info)

    def _has_room(self, member: Member, items: int) -> bool:
        taken = member.work.items
        return not taken or taken + items <= self._permits(member)

    def _least_bad(self) -> Member | None:
        """Return which one to try though all are out: each in its turn."""
        usable = [each for each in self.members() if not each.refused]
        return min(
            usable,
            key=lambda each: (
                each.is_drained,
                each.standing.is_away,
                each.tried,
            ),
            default=None,
        )
