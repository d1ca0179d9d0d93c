"""What every part of the benchmark is given, and how it tells where it is."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrs import frozen

from bench.wire.contestants import Ground
from bench.wire.load import Load
from bench.wire.workloads import Workload

__all__ = ["Bench", "Found"]

Found = dict[str, Any]
"""Results, as they are written down as JSON."""


@frozen(kw_only=True)
class Bench:
    """Where and how much to measure."""

    ground: Ground
    load: Load
    workloads: Sequence[Workload]
    rounds: int
    seconds: int
    """For one run."""

    @property
    def folder(self) -> Path:
        """Tell where files may be put."""
        return self.ground.folder


def say(words: str) -> None:
    """Show what is going on."""
    sys.stderr.write(f"{words}\n")
    sys.stderr.flush()
