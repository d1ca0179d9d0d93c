"""
What is there when the work begins is never looked through for garbage.

Python counts what is made, and now and then looks through all that there is for
cycles that nobody needs.  With everything imported that takes 10 to 20 ms, in
which all calls wait; and nothing of it is garbage as long as the process lives.
"""

import gc

__all__ = ["settle"]

NEW = 10_000
"""
So many new objects are looked through at once, where Python's default is 700.

A batch on its way is a few hundred: they are gone before anybody looks.
"""


def settle() -> None:
    """Look through everything once, and from then on only through what is new."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(NEW)
