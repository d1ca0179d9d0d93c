"""
What a process of ours does for speed, once everything is there.

Python counts what is made, and now and then looks through all that there is for
cycles that nobody needs.  With everything imported that takes 10 to 20 ms, in
which all calls wait; and nothing of it is garbage as long as the process lives.
"""

import gc
from typing import Any

from abproxy.polling import poll_directly
from abproxy.settings import Settings

__all__ = ["settle"]

NEW = 10_000
"""
So many new objects are looked through at once, where Python's default is 700.

A batch on its way is a few hundred: they are gone before anybody looks.
"""


def settle(settings: Settings, reactor: Any) -> None:
    """Make this process one that does nothing but to serve."""
    if settings.poll_directly:
        poll_directly(reactor)
    gc.collect()
    gc.freeze()
    gc.set_threshold(NEW)
