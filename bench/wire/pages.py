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

__all__ = ["JSON", "PAGES", "PLOT", "between", "publish", "read"]

JSON = ROOT / "docs/benchmarks.json"
PLOT = ROOT / "docs/images/benchmarks.svg"
PAGES: Mapping[Path, Callable[[Found], str]] = {
    ROOT / "README.md": tables.short,
    ROOT / "docs/benchmarks.md": tables.full,
}
BEGIN = "<!-- made by `make bench/write`: begin -->"
END = "<!-- made by `make bench/write`: end -->"
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


def between(text: str) -> str:
    """Find what stands between the markers."""
    return text.partition(BEGIN)[2].partition(END)[0].strip()


def replaced(text: str, made: str) -> str:
    """
    Put something else between the markers.

    Raises:
        ValueError: there are none.
    """
    before, _, rest = text.partition(BEGIN)
    if END not in rest:
        raise ValueError("no place for the tables: the markers are missing")
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n\n{made}\n\n{END}{after}"


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
