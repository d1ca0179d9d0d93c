"""
Where results are published: `docs/benchmarks.json`, and what is made of it.

The README and docs/benchmarks.md carry tables between two markers; all between
them is made again, all around them is left alone.
"""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from bench.wire import bars, tables
from bench.wire.bench import Found
from bench.wire.contestants import ROOT
from bench.wire.errors import CannotMeasure

__all__ = ["JSON", "PAGES", "PLOT", "between", "markers", "publish", "read"]

JSON = ROOT / "docs/benchmarks.json"
PLOT = ROOT / "docs/images/benchmarks.svg"
PAGES: Mapping[Path, Callable[[Found], str]] = {
    ROOT / "README.md": tables.short,
    ROOT / "docs/benchmarks.md": tables.full,
}
MAKER = "make bench/write"
"""What the markers say that the tables are made by."""

_LIST_OF_NUMBERS = re.compile(r"\[[\s\d.,e-]+\]")


def read(path: Path) -> Found:
    """Read results."""
    found: Found = json.loads(path.read_text(encoding="utf-8"))
    return found


def written(found: Found) -> str:
    """Write results as JSON, a line for each list of figures."""
    text = json.dumps(found, indent=1, ensure_ascii=False)
    return _LIST_OF_NUMBERS.sub(_on_one_line, text) + "\n"


def _on_one_line(found: re.Match[str]) -> str:
    return " ".join(found[0].split()).replace("[ ", "[").replace(" ]", "]")


def between(text: str, maker: str = MAKER) -> str:
    """Find what stands between the markers of *maker*."""
    begin, end = markers(maker)
    return text.partition(begin)[2].partition(end)[0].strip()


def markers(maker: str = MAKER) -> tuple[str, str]:
    """Write the lines around tables that *maker* makes."""
    return f"<!-- made by `{maker}`: begin -->", f"<!-- made by `{maker}`: end -->"


def replaced(text: str, made: str, maker: str = MAKER) -> str:
    """
    Put something else between the markers of *maker*.

    Raises:
        ValueError: there are none.
    """
    begin, end = markers(maker)
    before, _, rest = text.partition(begin)
    if end not in rest:
        raise ValueError("no place for the tables: the markers are missing")
    after = rest.partition(end)[2]
    return f"{before}{begin}\n\n{made}\n\n{end}{after}"


def publish(found: Found) -> None:
    """
    Write the JSON, the plot and both tables.

    Raises:
        CannotMeasure: the speed is not among the results.
    """
    if "speed" not in found:
        raise CannotMeasure("these results have no speed, and are not published")
    JSON.write_text(written(found), encoding="utf-8")
    PLOT.write_text(bars.svg(found), encoding="utf-8")
    for path, write in PAGES.items():
        text = path.read_text(encoding="utf-8")
        path.write_text(replaced(text, write(found)), encoding="utf-8")
