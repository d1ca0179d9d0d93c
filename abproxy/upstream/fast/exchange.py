"""
One question on its way, and the promise of its answer.

Whoever gives up hears so at once and of nothing else, whatever becomes of the
connection.
"""

from collections.abc import Callable
from typing import Protocol

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from abproxy.http.messages import Response

__all__ = ["Answer", "Exchange"]


class Answer(Protocol):
    """What reads an answer while it comes in."""

    @property
    def may_be_followed(self) -> bool:
        """Whether the connection is good for one more, once this is whole."""

    def receive(self, data: bytes) -> Response | None:
        """
        Take in a piece; the reply if it is whole now.

        Raises:
            Exception: it is none.
        """

    def end(self, error: Exception) -> Response:
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

    _done: Deferred[Response] | None = field(init=False, default=None, repr=False)

    def promise(self) -> Deferred[Response]:
        """
        Promise the answer; whoever cancels that gives up.

        Once kept, the promise is let go: two that hold on to each other, and to a
        question of some megabytes, would wait for the garbage collector.
        """
        self._done = Deferred(self._give_up)
        return self._done

    def tell(self, outcome: Response | Failure) -> None:
        """Tell what has become of it, unless nobody waits any more."""
        done, self._done = self._done, None
        if done is not None:
            done.callback(outcome)

    def fail(self, error: Exception) -> None:
        """Tell of an *error*."""
        self.tell(Failure(error))

    def unheard(self, error: Exception) -> None:
        """Send it again, or tell of the *error* that came in place of an answer."""
        again, self.again = self.again, None
        if again is None:
            self.fail(error)
        else:
            again(self)

    def _give_up(self, _done: Deferred[Response]) -> None:
        self.fail(CancelledError())
        self.stop()
