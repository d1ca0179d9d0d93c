"""
Which model the servers of a fleet serve, and which of them are left out for that.

The first server that says which model it has decides.  Those of another one get no
calls until they have that as well.  Only when no server of it is left, the others
decide: at once if they are half of the fleet, and otherwise after a while, as a
server that restarts may come back with it.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from abproxy.timer import Timer
from abproxy.upstream.client import Upstream
from abproxy.upstream.fleet.member import Member
from abproxy.upstream.identity import (
    Identity,
    choose_served,
    takes_over,
    why_refused,
)

__all__ = ["GONE_S", "Agreement"]

GONE_S = 30.0
"""How long the model is kept of which no server is left, in seconds."""


def identity_of(upstream: Upstream) -> Identity | None:
    """Return what a server says of its model; None if it may be another one now."""
    known = upstream.generations.source.identity
    # As long as nothing has gone wrong, it is what it was.
    return upstream.info.identity if known is None and upstream.is_certain else known


@define(kw_only=True, eq=False)
class Agreement:
    """Which model is served."""

    clock: IReactorTime = field(repr=False)
    strict: bool = False
    """Whether the same model in other numbers is another one."""

    on_due: Callable[[], None] = field(repr=False)
    """Called when it is time to look again."""

    served: Identity | None = field(init=False, default=None)
    """None as long as no server has said anything."""

    _gone_at: float | None = field(init=False, default=None)
    """Since when no server has that model."""

    _due: Timer = field(init=False, repr=False)
    _log: ClassVar[Logger] = Logger()

    def __attrs_post_init__(self) -> None:
        """Begin with nothing said."""
        self._due = Timer(self.clock, self.on_due)

    def look(self, members: Sequence[Member]) -> None:
        """Note of each of *members* whether it has the model that is served."""
        said = {each: identity_of(each.upstream) for each in members}
        usable = [
            identity
            for each, identity in said.items()
            if identity is not None
            and not (each.standing.is_away or each.is_drained or each.is_leaving)
        ]
        self._decide(usable, len(members))
        is_there = any(self._fits(each) for each in usable)
        for each, identity in said.items():
            each.is_unsure = identity is None and is_there
            if identity is None:
                each.upstream.generations.ask()
            else:
                self._judge(each, identity)

    @property
    def said(self) -> dict[str, Any]:
        """Return what is said of the model, which does not depend on who takes part."""
        if self.served is None:
            return {}
        ids = self.served.models
        return {
            "model": ids[0] if len(ids) == 1 else None,
            "models": ids if len(ids) > 1 else (),
            "sha": self.served.sha,
            "dtype": self.served.dtype,
        }

    def stop(self) -> None:
        """Leave no timer behind."""
        self._due.cancel()

    def _fits(self, identity: Identity) -> bool:
        served = self.served
        return served is not None and takes_over(served, identity, strict=self.strict)

    def _decide(self, usable: Sequence[Identity], count: int) -> None:
        """Choose what is served, if that has to be another model now."""
        chosen = choose_served(self.served, usable, strict=self.strict)
        if chosen is None or chosen == self.served:
            self.stop()
            self._gone_at = None
            self.served = chosen
            return
        if self.served is not None and not self._is_due(chosen, usable, count):
            return
        former, self.served = self.served, chosen
        if former is not None:
            self._log.warn(
                "No server has {former} any more: {chosen} is served now, and what was "
                "remembered is forgotten",
                former=str(former),
                chosen=str(chosen),
            )

    def _is_due(self, chosen: Identity, usable: Sequence[Identity], count: int) -> bool:
        """Return whether the others may decide, or set a timer for when they may."""
        votes = sum(takes_over(chosen, each, strict=self.strict) for each in usable)
        now = self.clock.seconds()
        if self._gone_at is None:
            self._gone_at = now
        left_s = self._gone_at + GONE_S - now
        if 2 * votes >= count or left_s <= 0:
            self.stop()
            self._gone_at = None
            return True
        self._due.set(left_s)
        return False

    def _judge(self, member: Member, identity: Identity) -> None:
        served = self.served
        why = why_refused(served, identity, strict=self.strict) if served else ""
        if why == member.refused:
            return
        member.refused = why
        if why:
            self._log.warn(
                "The inference server {url} is left out: {why}",
                url=member.upstream.name,
                why=why,
            )
        else:
            self._log.info(
                "The inference server {url} gets calls again: it has {model}",
                url=member.upstream.name,
                model=str(identity),
            )
