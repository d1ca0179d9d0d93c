"""
Watching never costs an answer: a mistake in it is logged and forgotten.

Everything that rooms call to tell something to a watcher is wrapped in this.
"""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

from twisted.logger import Logger

__all__ = ["never_raises"]

_P = ParamSpec("_P")
_log = Logger()


def never_raises(watch: Callable[_P, None]) -> Callable[_P, None]:
    """Let a mistake in *watch* be logged, and nothing else come of it."""

    @wraps(watch)
    def watch_safely(*args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            watch(*args, **kwargs)
        except Exception:  # noqa: BLE001  that is the point
            _log.failure("Something could not be noted")

    return watch_safely
