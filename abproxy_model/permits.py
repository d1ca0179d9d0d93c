"""
How many inputs may be in the house.

An input holds a permit from the moment its request is accepted until it is
answered or its client has left. Nobody waits for a permit: one missing refuses
the whole request.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from attrs import define, field

from abproxy_model.errors import OverloadedError

__all__ = ("Permits",)


@define(kw_only=True, eq=False)
class Permits:
    """A counter of inputs."""

    _total: int
    _taken: int = field(init=False, default=0)

    @property
    def taken(self) -> int:
        """Permits in use."""
        return self._taken

    @contextmanager
    def hold(self, count: int) -> Iterator[None]:
        """
        Hold *count* permits while the block runs.

        Raises:
            OverloadedError: there are not as many left.
        """
        if self._taken + count > self._total:
            raise OverloadedError
        self._taken += count
        try:
            yield
        finally:
            self._taken -= count
