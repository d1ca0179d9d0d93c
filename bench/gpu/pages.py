"""Where results are published: `docs/gpu.json`, and what is made of it."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bench.gpu import tables
from bench.gpu.servers import OWN
from bench.simulation.plots import Plot
from bench.wire import pages
from bench.wire.bench import Found
from bench.wire.contestants import ROOT

__all__ = ["JSON", "MAKER", "PAGES", "PLOT", "drawn", "publish"]

JSON = ROOT / "docs/gpu.json"
PLOT = ROOT / "docs/images/gpu.svg"
MAKER = "make bench/gpu/write"
PAGES: Mapping[Path, Callable[[Found], str]] = {
    ROOT / "README.md": tables.short,
    ROOT / "docs/benchmarks.md": tables.full,
}


def publish(found: Found) -> None:
    """Write the JSON, the plot and both tables."""
    JSON.write_text(pages.written(found), encoding="utf-8")
    PLOT.write_text(drawn(found), encoding="utf-8")
    for path, write in PAGES.items():
        text = path.read_text(encoding="utf-8")
        path.write_text(pages.replaced(text, write(found), MAKER), encoding="utf-8")


def drawn(found: Found) -> str:
    """Draw the small model, one short text a call, below the model fed straight."""
    curves = {
        "model fed straight": _limit(found),
        **{
            f"{server}{' + abproxy' if side == 'abproxy' else ''}": points
            for server in OWN
            for side in reversed(tables.SIDES)
            if (points := _points(found, server, side))
        },
    }
    title = f"Texts a second of 10 words, MiniLM-L6 on one {found['card']}"
    return Plot(title=title, unit="", curves=curves).svg()


def _points(found: Found, server: str, side: str) -> list[tuple[float, float]]:
    return [
        (each["cell"]["clients"], tables.texts_per_s(each, side))
        for each in found["cells"]
        if each["cell"]["server"] == server
        and tables.is_simple(each["cell"])
        and not each[side]["errors"]
    ]


def _limit(found: Found) -> Sequence[tuple[float, float]]:
    most = tables.limit(found, "minilm", 10)
    return [(1, most), (1000, most)]
