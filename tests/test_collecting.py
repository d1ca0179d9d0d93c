"""That what is there at the start is left alone, and what is new is not."""

import subprocess
import sys

SETTLING = """
import gc
from abproxy.collecting import NEW, settle

class Old: pass
there = Old()
settle()
new = Old()
assert not any(each is there for each in gc.get_objects())
assert any(each is new for each in gc.get_objects())
assert gc.get_threshold()[0] == NEW
assert gc.isenabled()
new.itself = new
gone = []
import weakref
weakref.finalize(new, gone.append, True)
del new
gc.collect()
assert gone == [True]
"""


def test_only_what_is_new_is_looked_through() -> None:
    """In a process of its own, as there is no way back."""
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", SETTLING], check=False, capture_output=True, text=True
    )

    assert done.returncode == 0, done.stderr
