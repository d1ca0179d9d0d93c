"""How the code is built: `make structure` prints the figures that are held here."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from tools.structure import (
    LONGEST,
    Module,
    against_the_order,
    count,
    figures_of,
    find_circle,
    follow_lone_call,
    places_without_a_row,
    read_modules,
)

AT_MOST = {"modules": 195, "root modules": 10, "Protocols": 4}
"""What the source may have: lowered with the figure, raised only for a new subject."""

AT_MOST_FOR_A_CALL = {
    "files": 26,
    "classes": 36,
    "functions": 82,
    "calls of these functions": 93,
}
"""What a warm lone call may enter: to be lowered with the figure, never raised."""

GUIDE = "see `make structure`, and `ORDER` in tools/structure.py"


@pytest.fixture(scope="module")
def modules() -> Sequence[Module]:
    """Read the source."""
    return read_modules()


def test_no_imports_go_in_a_circle(modules: Sequence[Module]) -> None:
    """What is imported can be read, and tested, without its importer."""
    assert not find_circle(modules)


def test_every_folder_has_its_place_in_the_order(modules: Sequence[Module]) -> None:
    """A folder of which nothing is known might import whatever it likes."""
    assert not places_without_a_row(modules), GUIDE


def test_imports_follow_the_order_of_the_folders(modules: Sequence[Module]) -> None:
    """Batching knows no HTTP, and only wiring knows what is handed in."""
    assert not against_the_order(modules), GUIDE


def test_no_module_is_too_long(modules: Sequence[Module]) -> None:
    """One subject is read in one sitting."""
    assert not [each.name for each in modules if each.lines > LONGEST]


@pytest.mark.parametrize("figure", AT_MOST)
def test_the_source_does_not_grow_pieces(
    modules: Sequence[Module], figure: str
) -> None:
    """Each module and each Protocol is one more to know."""
    assert count(modules)[figure] <= AT_MOST[figure]


def test_a_lone_call_does_not_get_a_longer_way() -> None:
    """After a pause, each function that it enters is one that the CPU has lost."""
    figures = figures_of(follow_lone_call())

    assert figures.keys() == AT_MOST_FOR_A_CALL.keys()
    more = {name: n for name, n in figures.items() if n > AT_MOST_FOR_A_CALL[name]}
    assert not more, "see `make structure args=--calls`"


# That the tool sees what it looks for


def read(tmp_path: Path, **files: str) -> list[Module]:
    """Read modules of a proxy that hold this."""
    for name, text in {"__init__": "", **files}.items():
        path = tmp_path / "abproxy" / f"{name.replace('__in__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return read_modules(tmp_path)


def test_a_circle_is_found(tmp_path: Path) -> None:
    """Also where one of the imports waits until it is needed."""
    later = "def f():\n    import abproxy.errors\n"
    modules = read(tmp_path, errors="from abproxy import headers\n", headers=later)

    assert set(find_circle(modules)) == {"abproxy.errors", "abproxy.headers"}


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("errors", "tap"),
        ("batching__in__queue", "web__in__app"),
        ("batching__in__queue", "upstream__in__client"),
        ("service", "telemetry__in__status"),
        ("telemetry__in__status", "upstream__in__client"),
        ("upstream__in__client", "batching__in__queue"),
        ("new", "telemetry__in__status"),
    ],
)
def test_an_import_against_the_order_is_found(
    tmp_path: Path, importer: str, imported: str
) -> None:
    """Whatever folder it starts from."""
    module = imported.replace("__in__", ".")
    modules = read(
        tmp_path, **{importer: f"from abproxy.{module} import x\n", imported: ""}
    )

    pair = importer.partition("__in__")[0], imported.partition("__in__")[0]
    assert against_the_order(modules) == {pair: 1}


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("tap", "errors"),
        ("web__in__app", "batching__in__queue"),
        ("web__in__app", "web__in__auth"),
        ("wiring", "upstream__in__client"),
        ("wiring", "chosen"),
        ("telemetry__in__status", "batching__in__queue"),
        ("upstream__in__client", "dialects__in__call"),
    ],
)
def test_an_import_in_the_order_is_none(
    tmp_path: Path, importer: str, imported: str
) -> None:
    """What is below may be known."""
    module = imported.replace("__in__", ".")
    modules = read(
        tmp_path, **{importer: f"from abproxy.{module} import x\n", imported: ""}
    )

    assert not against_the_order(modules)


def test_a_folder_without_a_place_is_found(tmp_path: Path) -> None:
    """What is new has to be put somewhere."""
    modules = read(tmp_path, errors="", new__in__module="")

    assert places_without_a_row(modules) == {"new"}


def test_what_the_source_is_made_of_is_counted(tmp_path: Path) -> None:
    """By its own words."""
    source = "class A(Protocol[T]):\n    def f(self): ...\nasync def g(): ...\n"
    modules = read(tmp_path, errors=source, web__in__app="class B: ...\n")

    figures = count(modules)

    assert figures["modules"] == 3
    assert figures["root modules"] == 1
    assert figures["lines of the longest module"] == 3
    assert (figures["classes"], figures["functions"]) == (2, 2)
    assert figures["Protocols"] == 1
