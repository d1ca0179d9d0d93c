"""
What kept calls from sharing a batch lately: names and counts, never values.

Counted is when a lane is made that differs from the one before it, and each call
that goes alone, so calls that share pay nothing for it.
"""

from collections.abc import Iterable, Mapping
from operator import attrgetter
from typing import Any

from attrs import asdict, define, field, frozen
from twisted.internet.interfaces import IReactorTime

from abproxy.dialects.routes import MEMBERS_THAT_COUNT
from abproxy.http.sharing import MEMBER, may_be_ignored
from abproxy.telemetry.history import OFTEN

__all__ = [
    "OTHERS",
    "Hindrance",
    "RecentCounts",
    "RelayedPath",
    "Sharing",
    "merge_sharing",
]

HALF_S = 1800.0
"""Counts are forgotten when they are between one and two times as old, in seconds."""

MOST_NAMES = 50
"""So many names are counted; all others are one."""

LONGEST_NAME = 60

OTHERS = "others"

SHOWN = 10
"""So many names are shown, those that count most first."""


@define(eq=False)
class RecentCounts:
    """Counts of names over the last half hour, or hour."""

    _clock: IReactorTime
    _now: dict[str, int] = field(init=False, factory=dict)
    _before: dict[str, int] = field(init=False, factory=dict)
    _since: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._since = self._clock.seconds()

    def add(self, name: str) -> None:
        """Count a *name*, which may be whatever a client sends."""
        self._forget_old()
        name = name[:LONGEST_NAME]
        if name not in self._now and len(self._now) >= MOST_NAMES:
            name = OTHERS
        self._now[name] = self._now.get(name, 0) + 1

    def lately(self) -> dict[str, int]:
        """Return the names that came most, with their counts."""
        self._forget_old()
        return _most(self._before, self._now)

    def _forget_old(self) -> None:
        passed_s = self._clock.seconds() - self._since
        if passed_s < HALF_S:
            return
        self._before = self._now if passed_s < 2 * HALF_S else {}
        self._now, self._since = {}, self._clock.seconds()


def _most(*counts: Mapping[str, int]) -> dict[str, int]:
    whole: dict[str, int] = {}
    for each in counts:
        for name, times in each.items():
            whole[name] = whole.get(name, 0) + times
    largest = sorted(whole.items(), key=lambda pair: -pair[1])
    return dict(largest[:SHOWN])


@frozen
class Hindrance:
    """A header line, or as `body.NAME` a member, that kept calls from sharing."""

    name: str
    times: int
    setting: str
    """What would change that; empty if nothing should."""


@frozen
class RelayedPath:
    """A path to which requests with a body were relayed."""

    path: str
    times: int


@frozen(kw_only=True)
class Sharing:
    """What kept calls from sharing lately, what counts most first."""

    apart: tuple[Hindrance, ...] = ()
    """What differed from one call to the next."""

    alone: tuple[Hindrance, ...] = ()
    """What made calls go alone and whole."""

    relayed: tuple[RelayedPath, ...] = ()

    @classmethod
    def of(
        cls,
        apart: Mapping[str, int],
        alone: Mapping[str, int],
        relayed: Mapping[str, int],
    ) -> "Sharing":
        """Make it of counts by name."""
        return cls(
            apart=tuple(
                Hindrance(n, times, _ignoring(n)) for n, times in apart.items()
            ),
            alone=tuple(Hindrance(n, times, _sharing(n)) for n, times in alone.items()),
            relayed=tuple(RelayedPath(path, n) for path, n in relayed.items()),
        )

    def hindrance_of(self, parts: int) -> Hindrance | None:
        """Return what keeps nearly each of so many *parts* alone, if something does."""
        both = (*self.alone[:1], *self.apart[:1])
        most = max(both, key=attrgetter("times"), default=None)
        # These counts may reach back only half as far, so half of them is most.
        return most if most and most.times > OFTEN * parts else None

    def document(self) -> dict[str, Any]:
        """Return it as the status has it."""
        return asdict(self)


def _ignoring(name: str) -> str:
    """Return the setting with which *name* keeps no calls apart."""
    member = name.removeprefix(MEMBER)
    if name == OTHERS or (name != member and member in MEMBERS_THAT_COUNT):
        return ""
    if name.lower() == "authorization":
        return "INFERENCE_SERVICE_KEY"
    if name == member and not may_be_ignored(name.lower()):
        return ""
    return f"SHARE_IGNORE={name}"


def _sharing(name: str) -> str:
    """Return the setting with which a call with *name* may share."""
    if name in {OTHERS, "authorization"} or " " in name:  # no line, but an answer
        return ""
    kind = "SHARE_APART" if name.startswith(MEMBER) else "SHARE_IGNORE"
    return f"{kind}={name}"


def merge_sharing(documents: Iterable[Mapping[str, Any]]) -> Sharing:
    """Return what kept calls from sharing in all workers, from their documents."""
    listed = list(documents)

    def counts(of: str, by: str) -> dict[str, int]:
        each = [{item[by]: item["times"] for item in found[of]} for found in listed]
        return _most(*each)

    return Sharing.of(
        counts("apart", "name"), counts("alone", "name"), counts("relayed", "path")
    )
