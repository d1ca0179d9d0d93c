"""How many in a second, lately."""

from attrs import define, field
from twisted.internet.interfaces import IReactorTime

__all__ = ["Rate"]

PERIOD_S = 0.5
"""How long is counted before a new figure is made, in seconds."""


@define(eq=False)
class Rate:
    """
    A count by the second, over the last period that is complete.

    A period ends with the first count after its time: what is rare is
    measured over as long as it takes.
    """

    _clock: IReactorTime
    _since: float = field(init=False)
    _counted: int = field(init=False)
    _rate: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Begin now."""
        self.begin()

    def begin(self) -> None:
        """Forget what was counted, and begin now."""
        self._since = self._clock.seconds()
        self._counted = 0
        self._rate = 0.0

    def count(self, number: int) -> None:
        """Add *number* to what happened; with nothing added, no period ends."""
        if not number:
            return
        self._counted += number
        passed = self._clock.seconds() - self._since
        if passed >= PERIOD_S:
            self._rate = self._counted / passed
            self._since += passed
            self._counted = 0

    def per_second(self) -> float:
        """Say the latest figure; 0 if there is none yet."""
        return self._rate
