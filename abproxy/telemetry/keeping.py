"""For how long what has kept batches from leaving."""

from attrs import define, field
from twisted.internet.interfaces import IReactorTime

from abproxy.events import BlockedBy

__all__ = ["BlockedTime"]


@define(kw_only=True, eq=False)
class BlockedTime:
    """The obstacle of the moment, and the seconds of all so far."""

    clock: IReactorTime = field(repr=False)
    obstacle: BlockedBy = field(init=False, default=BlockedBy.NOTHING)
    _since: float = field(init=False)
    _seconds: dict[BlockedBy, float] = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Begin with nothing in the way."""
        self._since = self.clock.seconds()
        self._seconds = dict.fromkeys(BlockedBy, 0.0)

    def by(self, obstacle: BlockedBy) -> None:
        """Note that something else is in the way."""
        now = self.clock.seconds()
        self._seconds[self.obstacle] += now - self._since
        self._since = now
        self.obstacle = obstacle

    def seconds(self, obstacle: BlockedBy) -> float:
        """Say how long *obstacle* was there, up to now."""
        is_there = obstacle is self.obstacle
        passed_s = self.clock.seconds() - self._since if is_there else 0.0
        return self._seconds[obstacle] + passed_s
