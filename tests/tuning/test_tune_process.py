"""What is there at the start is left alone, and what is new is not."""

import subprocess
import sys

import pytest

LOOKING = """
import gc, weakref
from twisted.internet import reactor
from abproxy.tuning import NEW_OBJECTS, tune_process

class Object: pass
old = Object()
tune_process(reactor, skips_log_context=False)
new = Object()
assert not any(each is old for each in gc.get_objects())
assert any(each is new for each in gc.get_objects())
assert gc.get_threshold()[0] == NEW_OBJECTS
assert gc.isenabled()
gone = []
weakref.finalize(new, gone.append, True)
new.itself = new
del new
gc.collect()
assert gone == [True]
"""

POLLING = """
from twisted.internet import reactor
from abproxy.tuning import tune_process

tune_process(reactor, skips_log_context={chosen})
assert ("doIteration" in vars(reactor)) is {chosen}
"""

FREEING = """
from pathlib import Path
from twisted.internet import reactor
from abproxy.tuning import tune_process

MEGABYTE = 1 << 20

def resident():
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines()
              if line.startswith("VmRSS:")]
    return int(line.split()[1]) << 10

tune_process(reactor, skips_log_context=False)
bytes(30 * MEGABYTE)
before = resident()
bodies = []
between = []
for _ in range(40):
    bodies.append(b"x" * 2 * MEGABYTE)
    between.append([b"y" * 1000 for _ in range(50)])
assert resident() > before + 70 * MEGABYTE
bodies.clear()
assert resident() < before + 10 * MEGABYTE
"""


SOURCES = """
import linecache
from attrs import define
from twisted.internet import reactor
from abproxy.tuning import tune_process

@define
class Written:
    member: int

def sources():
    return [name for name in linecache.cache if name.startswith("<attrs generated")]

assert sources()
tune_process(reactor, skips_log_context=False)
assert not sources()
assert Written(1) == Written(1)
"""

ASKING = """
from twisted.internet import reactor
from abproxy import tuning

asked = []
tuning.use_huge_pages = lambda: asked.append(True)
tuning.tune_process(reactor, skips_log_context=False, has_huge_pages={wanted})
assert bool(asked) is {wanted}
"""


def _done_in_a_process_of_its_own(script: str) -> None:
    # There is no way back from it.
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", script], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_only_what_is_new_is_looked_through() -> None:
    """Garbage among it is still found."""
    _done_in_a_process_of_its_own(LOOKING)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has epoll")
@pytest.mark.parametrize("chosen", [True, False])
def test_events_are_polled_for_as_the_operator_wants(chosen: bool) -> None:  # noqa: FBT001
    """Directly, or as Twisted does."""
    _done_in_a_process_of_its_own(POLLING.format(chosen=chosen))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells it so")
def test_the_memory_of_large_bodies_is_given_back() -> None:
    """Though others were freed before, and what is needed lies between them."""
    _done_in_a_process_of_its_own(FREEING)


def test_the_source_of_methods_that_attrs_has_written_is_not_kept() -> None:
    """The methods are, and it would be half a megabyte for debuggers only."""
    _done_in_a_process_of_its_own(SOURCES)


@pytest.mark.parametrize("wanted", [True, False])
def test_only_what_answers_calls_has_huge_pages(wanted: bool) -> None:  # noqa: FBT001
    """A supervisor answers none."""
    _done_in_a_process_of_its_own(ASKING.format(wanted=wanted))
