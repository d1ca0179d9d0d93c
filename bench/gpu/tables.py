"""Results as Markdown: made of the JSON alone, so that the two cannot differ."""

from collections.abc import Iterator, Mapping, Sequence

from bench.gpu.servers import INSTALLED
from bench.gpu.shapes import SHAPES
from bench.wire.bench import Found

__all__ = ["NAMES", "SIDES", "full", "is_simple", "limit", "short", "texts_per_s"]

SIDES = ("direct", "abproxy")
NAMES = {"naive": "naive: one at a time", "batcher": "batcher: batches itself"}


def short(found: Found) -> str:
    """Write what the README shows: short texts, one a call, on the small model."""
    head = (
        *("Server", "Clients", "directly: calls/s", "p50"),
        *(
            "through abproxy: calls/s",
            "p50",
            "times directly",
            "of the model fed straight",
        ),
    )
    rows = [
        (
            _server(each),
            f"{each['cell']['clients']:,}",
            *(text for side in SIDES for text in _figures(each[side])[:2]),
            _times(each),
            _share(found, each, "abproxy"),
        )
        for each in found["cells"]
        if is_simple(each["cell"])
    ]
    return f"{_where(found)}\n\n{_table(head, rows)}"


def is_simple(cell: Mapping[str, object]) -> bool:
    """Whether only server and clients differ from the others in the README."""
    return (cell["shape"], cell["words"], cell["inputs"]) == ("minilm", 10, 1)


def full(found: Found) -> str:
    """Write everything there is, for the page about it."""
    head = (
        *("Server", "Model", "A call", "Clients", "directly: calls/s", "p50", "p99"),
        *("through abproxy: calls/s", "p50", "p99", "times directly"),
        *("of the model fed straight: directly", "through abproxy"),
        *("cores busy: abproxy", "server"),
    )
    rows = [
        (
            _server(each),
            SHAPES[each["cell"]["shape"]].title,
            _call(each["cell"]),
            f"{each['cell']['clients']:,}",
            *(text for side in SIDES for text in _figures(each[side])),
            _times(each),
            *(_share(found, each, side) for side in SIDES),
            f"{each['abproxy']['proxy_cores']:.2f}",
            f"{each['abproxy']['server_cores']:.2f}",
        )
        for each in found["cells"]
    ]
    return "\n\n".join([_where(found), _table(head, rows), *_limits(found)])


def _limits(found: Found) -> Iterator[str]:
    yield "The model fed straight, texts a second by texts in a step:"
    limits = [
        (SHAPES[shape].title, words, each)
        for shape, by_words in found["limits"].items()
        for words, each in by_words.items()
    ]
    counts = sorted({int(count) for *_, each in limits for count in each})
    head = ("Model", "Words", *(f"{count:,}" for count in counts))
    rows = [
        (
            title,
            words,
            *(f"{each[str(n)]:,.0f}" if str(n) in each else "" for n in counts),
        )
        for title, words, each in limits
    ]
    yield _table(head, rows)


def _where(found: Found) -> str:
    machine = found["machine"]
    packages = {**machine["packages"], **found["packages"]}
    versions = ", ".join(f"{name} {each}" for name, each in packages.items())
    missing = [name for name in INSTALLED if name not in _servers(found)]
    where = (
        f"Measured on {machine['date']} on one **{found['card']}**: {machine['cpu']}, "
        f"{machine['cores']} cores ({machine['placed']}), {machine['system']}, "
        f"Python {machine['python']}, {versions}; load from {machine['load']}."
    )
    if not missing:
        return where
    return f"{where}\nNot installed there, so not measured: {', '.join(missing)}."


def _servers(found: Found) -> set[str]:
    return {each["cell"]["server"] for each in found["cells"]}


def _server(one: Found) -> str:
    name = str(one["cell"]["server"])
    return NAMES.get(name, name)


def _call(cell: Found) -> str:
    inputs = cell["inputs"]
    return f"{inputs} text{'' if inputs == 1 else 's'} of {cell['words']} words"


def _figures(side: Found) -> Sequence[str]:
    if side["errors"]:
        return (f"failed: {side['errors']}", "", "")
    return (
        f"{side['calls_per_s']:,.0f}",
        *(_ms(side[name]) for name in ("p50_ms", "p99_ms")),
    )


def _ms(figure: float) -> str:
    return f"{figure:.1f} ms" if figure < 100 else f"{figure:,.0f} ms"  # noqa: PLR2004


def _times(one: Found) -> str:
    if any(one[side]["errors"] for side in SIDES):
        return ""
    ratio = one["abproxy"]["calls_per_s"] / one["direct"]["calls_per_s"]
    return f"{ratio:.2f}" if ratio < 10 else f"{ratio:,.0f}"  # noqa: PLR2004


def texts_per_s(one: Found, side: str) -> float:
    """Tell how many texts a second were answered."""
    return float(one[side]["calls_per_s"] * one["cell"]["inputs"])


def limit(found: Found, shape: str, words: int) -> float:
    """Tell how many texts a second the model does at best when it is fed straight."""
    return float(max(found["limits"][shape][str(words)].values()))


def _share(found: Found, one: Found, side: str) -> str:
    if one[side]["errors"]:
        return ""
    cell = one["cell"]
    share = texts_per_s(one, side) / limit(found, cell["shape"], cell["words"])
    return f"{share:.1%}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "|" + "|".join(f" {cell} " if cell else " " for cell in line) + "|"
        for line in lines
    )
