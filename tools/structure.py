"""
How the code is built, in figures: `make structure` prints them.

It reads the source of both packages, and follows one warm lone call through the
running proxy.  No clock is looked at, so the figures are the same every time.
"""

import ast
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from attrs import frozen

__all__ = [
    "LONGEST",
    "Module",
    "against_the_order",
    "count",
    "figures_of",
    "find_circle",
    "follow_lone_call",
    "places_without_a_row",
    "read_modules",
]

ROOT = Path(__file__).resolve().parent.parent
PROXY, MODEL = "abproxy", "abproxy_model"

LONGEST = 450
"""Lines that a module may have."""

ORDER: Sequence[frozenset[str]] = (
    frozenset({"tap", "healthcheck"}),
    frozenset({"workers"}),
    frozenset({"wiring", "reload"}),
    frozenset({"models"}),
    frozenset({"configure"}),
    frozenset({"settings"}),
    frozenset({"service"}),
    frozenset({"web"}),
    frozenset({"reuse"}),
    frozenset({"batching"}),
    frozenset({"dialects"}),
    frozenset({"events"}),
    frozenset({"http"}),
    frozenset({"errors", "tuning", "process", "timer", "__init__"}),
)
"""
Folders and modules of the proxy: each imports from its own row and those below.

A module that is in no folder may import from others of its row; a folder is
alone in its row.
"""

WIRING = 4
"""The last row that may import what is handed in."""

HANDED_IN: Mapping[str, str] = {"telemetry": "web", "upstream": "batching"}
"""
Folders that are handed in, so nothing below wiring imports them.

They may import what is below the folder beside them.
"""


@frozen(kw_only=True)
class Module:
    """One file of source."""

    name: str
    lines: int
    classes: int
    functions: int
    protocols: int
    imports: frozenset[str]
    """The modules of ours that it imports, wherever in the file."""

    @property
    def package(self) -> str:
        """The package that it is in."""
        return self.name.partition(".")[0]

    @property
    def place(self) -> str:
        """The folder of its package that it is in, or its own name."""
        return [*self.name.split("."), "__init__"][1]


def read_modules(root: Path = ROOT) -> list[Module]:
    """Read the source of both packages."""
    files = {
        _name_of(file.relative_to(root)): file
        for package in (PROXY, MODEL)
        for file in sorted((root / package).rglob("*.py"))
    }
    return [_read(name, file, files) for name, file in files.items()]


def _name_of(file: Path) -> str:
    parts = file.with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def _read(name: str, file: Path, known: Container[str]) -> Module:
    text = file.read_text(encoding="utf-8")
    nodes = list(ast.walk(ast.parse(text)))
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    classes = [node for node in nodes if isinstance(node, ast.ClassDef)]
    imported = {each for node in nodes for each in _imported(node) if each in known}
    return Module(
        name=name,
        lines=text.count("\n"),
        classes=len(classes),
        functions=sum(isinstance(node, functions) for node in nodes),
        protocols=sum(_is_protocol(each) for each in classes),
        imports=frozenset(imported - {name}),
    )


def _is_protocol(node: ast.ClassDef) -> bool:
    bases = {ast.unparse(base).partition("[")[0] for base in node.bases}
    return bool(bases & {"Protocol", "typing.Protocol"})


def _imported(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (each.name for each in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        # A name in a package is a module, or stands in the package itself.
        yield node.module
        yield from (f"{node.module}.{each.name}" for each in node.names)


def find_circle(modules: Sequence[Module]) -> list[str]:
    """Name modules that import each other in a circle, if some do."""
    try:
        TopologicalSorter({each.name: each.imports for each in modules}).prepare()
    except CycleError as error:
        circle: list[str] = error.args[1]
        return circle
    return []


def places_without_a_row(modules: Sequence[Module]) -> set[str]:
    """Name the folders and modules of the proxy of which `ORDER` says nothing."""
    known = frozenset().union(*ORDER, HANDED_IN)
    return {each.place for each in modules if each.package == PROXY} - known


def against_the_order(modules: Sequence[Module]) -> Counter[tuple[str, str]]:
    """
    Count the imports against the order of the folders, by from and to.

    The proxy imports the model as it likes, and the model nothing of the proxy.
    """
    by_name = {each.name: each for each in modules}
    pairs = ((each, by_name[name]) for each in modules for name in each.imports)
    return Counter(
        (_shown(importer), _shown(imported))
        for importer, imported in pairs
        if not _may_import(importer, imported)
    )


def _shown(module: Module) -> str:
    return module.place if module.package == PROXY else module.package


def _may_import(importer: Module, imported: Module) -> bool:
    if importer.package == imported.package == MODEL:
        return True
    if MODEL in {importer.package, imported.package}:
        return importer.package == PROXY
    above, below = importer.place, imported.place
    if below in HANDED_IN:
        return above == below or (above not in HANDED_IN and _row(above) <= WIRING)
    if above in HANDED_IN:
        return _row(below) > _row(HANDED_IN[above])
    return _row(below) >= _row(above)


def _row(place: str) -> int:
    return next((at for at, row in enumerate(ORDER) if place in row), len(ORDER))


def count(modules: Sequence[Module]) -> dict[str, int]:
    """Count what the source is made of."""
    proxy = [each for each in modules if each.package == PROXY]
    model = [each for each in modules if each.package == MODEL]
    folders = {each.name.rpartition(".")[0] for each in modules}
    at_root = {each.name for each in proxy if each.name.count(".") == 1} - folders
    return {
        "modules": len(modules),
        "modules of the proxy": len(proxy),
        "modules of the model": len(model),
        "root modules": len(at_root),
        "lines": sum(each.lines for each in modules),
        "lines of the proxy": sum(each.lines for each in proxy),
        "lines of the model": sum(each.lines for each in model),
        "lines of the longest module": max(each.lines for each in modules),
        "classes": sum(each.classes for each in modules),
        "functions": sum(each.functions for each in modules),
        "Protocols": sum(each.protocols for each in modules),
    }


def follow_lone_call() -> dict[str, Any]:
    """
    Follow one warm lone call through a proxy, in a process of its own.

    Returns:
        what `lone_call.py` says: the files, classes and functions of ours that
        were entered, and how many functions of other packages.
    """
    with tempfile.TemporaryDirectory() as nowhere:
        done = subprocess.run(
            [sys.executable, "-m", "tools.lone_call"],
            cwd=nowhere,  # no .env is there
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            check=True,
            timeout=60,
        )
    followed: dict[str, Any] = json.loads(done.stdout)
    return followed


def figures_of(call: Mapping[str, Any]) -> dict[str, int]:
    """Count what a *call* has entered."""
    entered = {name: len(call[name]) for name in ("files", "classes", "functions")}
    return {**entered, "calls of these functions": call["calls"]}


def main() -> None:
    """Print all figures; with `--calls` also what a lone call enters."""
    modules = read_modules()
    longest = max(modules, key=lambda each: each.lines)
    call = follow_lone_call()
    _print("Source", count(modules))
    print(f"  the longest module is {longest.name}")
    circle = " > ".join(find_circle(modules)) or "none"
    print(f"\nImports in a circle: {circle}")
    found = sorted(against_the_order(modules).items())
    _print(
        "Imports against the order of the folders",
        {f"{importer} > {imported}": number for (importer, imported), number in found},
    )
    _print("One warm lone call enters", figures_of(call))
    _print("Functions of others that it enters", call["others"])
    if "--calls" in sys.argv[1:]:
        print("", *call["functions"], sep="\n")


def _print(title: str, figures: Mapping[str, int]) -> None:
    print(f"\n{title}")
    for name, number in figures.items():
        print(f"  {number:>6} {name}")


if __name__ == "__main__":
    main()
