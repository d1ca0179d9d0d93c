"""
One question on its way, and the promise of its answer.

Whoever gives up hears so at once and of nothing else, whatever becomes of the
connection.
"""

from collections.abc import Callable
from typing import Protocol

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred

from abproxy.messages import Reply

__all__ = ["Answer", "Exchange"]


class Answer(Protocol):
    """What reads an answer while it comes in."""

    @property
    def may_be_followed(self) -> bool:
        """Whether the connection is good for one more, once this is whole."""

    def receive(self, data: bytes) -> Reply | None:
        """
        Take in a piece; the reply if it is whole now.

        Raises:
            Exception: it is none.
        """

    def end(self, error: Exception) -> Reply:
        """
        Take in that the connection has ended, with *error*.

        Raises:
            Exception: the answer is not whole.
        """


@define(eq=False)
class Exchange:
    """One question and its answer."""

    method: bytes

    question: bytes = field(repr=False)
    """Head and body, as they are written."""

    stop: Callable[[], object] = field(init=False, repr=False)
    """Called to stop what is being done for it."""

    again: "Callable[[Exchange], object] | None" = field(default=None, repr=False)
    """Sends it once more, if that is right when no byte of an answer has come."""

    done: Deferred[Reply] = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        """Promise."""
        self.done = Deferred(self._give_up)

    def fail(self, error: Exception) -> None:
        """Tell of an *error*, unless nobody waits any more."""
        if not self.done.called:
            self.done.errback(error)

    def unheard(self, error: Exception) -> None:
        """Send it again, or tell of the *error* that came in place of an answer."""
        again, self.again = self.again, None
        if again is None:
            self.fail(error)
        else:
            again(self)

    def _give_up(self, done: Deferred[Reply]) -> None:
        done.errback(CancelledError())
        self.stop()
