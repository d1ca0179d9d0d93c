"""`docs/architecture.md` names only files, functions and commands that exist."""

import ast
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
BEFORE, PICTURE, AFTER = PAGE.split("```")
TEXT = BEFORE + AFTER

PLACE = re.compile(r"(?:abproxy|abproxy_model|bench|docs|tests|tools)/[\w/.-]*")
"""What a file or a folder looks like."""

NAME = re.compile(r"[A-Z]?[a-z]\w*(?:\.\w+)?|[A-Z]+")
"""What a class, function, method or constant looks like."""

NO_CODE = {"WORKERS", "twistd"}
"""Words in backquotes that are no names of code."""

SINGLE = re.compile(r"`([^`]+)`")


def named_in(line: str) -> list[str]:
    """Return what stands in backquotes."""
    return SINGLE.findall(line)


def lines_with_names() -> Sequence[str]:
    """Return the lines that name something in code."""
    return [line for line in TEXT.splitlines() if spoken_of(line)]


def spoken_of(line: str) -> set[str]:
    """Return the names of code in a line, but for folders of one word."""
    names = {each for each in named_in(line) if NAME.fullmatch(each)} - NO_CODE
    return names if ".py`" in line else {each for each in names if not each.islower()}


def defined_in(file: Path) -> Iterator[str]:
    """Yield the names that a file defines: of methods and members with their class."""
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        for name in _defined_by(node):
            yield name
            if isinstance(node, ast.ClassDef):
                yield from (f"{name}.{of}" for each in node.body for of in _names(each))


def _defined_by(node: ast.stmt) -> Iterator[str]:
    yield from _names(node)
    if isinstance(node, ast.Assign):
        yield from (each.id for each in node.targets if isinstance(each, ast.Name))


def _names(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        yield node.target.id


def places_in(text: str) -> list[str]:
    """Return the files and folders of a text."""
    return [each for each in named_in(text) if PLACE.fullmatch(each)]


def missing_in(line: str) -> set[str]:
    """Return the names of a line that none of its files defines."""
    files = [ROOT / each for each in places_in(line) if each.endswith(".py")]
    defined = {name for file in files for name in defined_in(file)}
    return spoken_of(line) - defined


def test_each_file_of_the_page_exists() -> None:
    """Also each folder, and those of the picture."""
    drawn = re.findall(r"[a-z]+(?:\.py|/)(?= )", PICTURE)
    places = [*places_in(TEXT), *(f"abproxy/{each}" for each in drawn)]

    assert len(drawn) > 8
    assert len(places) > 60
    assert [each for each in places if not (ROOT / each).exists()] == []


@pytest.mark.parametrize("line", lines_with_names())
def test_each_name_of_the_page_is_in_a_file_of_its_line(line: str) -> None:
    """So a reader finds it where the page says that it is."""
    assert missing_in(line) == set()


def test_a_name_that_is_gone_is_noticed() -> None:
    """Of a function, a class, a method and a constant."""
    file = "`abproxy/batching/queue.py`"

    assert missing_in(f"`gone`, `Gone` in {file}") == {"gone", "Gone"}
    assert missing_in(f"`Queue.gone`, `GONE` in {file}") == {"Queue.gone", "GONE"}
    assert missing_in("`Queue.add`") == {"Queue.add"}
    assert missing_in(f"`Queue.add` in {file}") == set()


def test_each_target_of_make_exists() -> None:
    """The commands of the page can be run."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = {
        target
        for each in named_in(TEXT)
        if each.startswith("make ")
        for target in each.split()[1:]
        if "=" not in target
    }

    assert targets
    assert [each for each in targets if f"\n{each}:" not in makefile] == []
