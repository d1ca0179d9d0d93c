"""How a benchmark ends: with one line of error, and without a process left."""

import signal
import sys
from collections.abc import Callable, Sequence

from bench.wire.errors import CannotMeasure
from bench.wire.files import allow_many_files

__all__ = ["run"]


def run(main: Callable[[Sequence[str]], None]) -> None:
    """Run *main* with the arguments of the command line; SIGTERM ends it as well."""
    signal.signal(signal.SIGTERM, _end)
    allow_many_files()
    try:
        main(sys.argv[1:])
    except CannotMeasure as error:
        sys.exit(f"bench: {error}")
    except KeyboardInterrupt:
        sys.exit("bench: interrupted")


def _end(*_: object) -> None:
    raise SystemExit("ended by SIGTERM")
