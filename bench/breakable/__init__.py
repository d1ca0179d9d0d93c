"""
An embedding server that breaks on command.

It looks like text-embeddings-inference (TEI): the same routes, limits, permits
and refusals.  Its rows are computed from the inputs, so that every answer can
be checked, and it can be told to misbehave in each way that a server, a
network or a supervisor has been seen to: see `faults`.

Run it (`python -m bench.breakable --help`), tell it what to do over HTTP
(`POST /-/break`), or use `Breakable` in the process of a test.
"""

from bench.breakable.faults import Fault
from bench.breakable.rows import row_of
from bench.breakable.server import Breakable
from bench.breakable.traits import Traits

__all__ = ["Breakable", "Fault", "Traits", "row_of"]
