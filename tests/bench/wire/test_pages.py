"""What is published is what was measured."""

import pytest

from bench.wire import bars, pages
from bench.wire.errors import CannotMeasure
from support.measured import found


@pytest.mark.parametrize("page", pages.PAGES, ids=lambda page: page.name)
def test_a_page_is_made_of_the_results(page: object) -> None:
    """Its tables are those of `docs/benchmarks.json`; `make bench/write` makes both."""
    [(path, write)] = [each for each in pages.PAGES.items() if each[0] == page]
    text = path.read_text(encoding="utf-8")

    assert pages.between(text) == write(pages.read(pages.JSON))


def test_the_plot_is_made_of_the_results() -> None:
    """The same ones."""
    drawn = pages.PLOT.read_text(encoding="utf-8")

    assert drawn == bars.svg(pages.read(pages.JSON))


def test_a_table_replaces_the_last_one() -> None:
    """And nothing else."""
    begin, end = pages.markers()
    text = f"Before.\n\n{begin}\n\nold\n\n{end}\n\nAfter.\n"

    once = pages.replaced(text, "new")
    assert once == text.replace("old", "new")
    assert pages.between(once) == "new"
    assert pages.replaced(once, "new") == once


def test_a_page_without_a_place_for_it_is_left_alone() -> None:
    """It would grow with each run."""
    with pytest.raises(ValueError, match="no place"):
        pages.replaced("Before.\n", "new")


def test_results_without_speed_are_not_published() -> None:
    """The README would have nothing to show."""
    with pytest.raises(CannotMeasure, match="no speed"):
        pages.publish({"memory": {}})


def test_results_can_be_read_again(tmp_path: "pages.Path") -> None:
    """With a line for each list of figures."""
    file = tmp_path / "found.json"
    file.write_text(pages.written(found()), encoding="utf-8")

    assert pages.read(file) == found()
    assert '"calls_per_s": [3000, 6000],\n' in file.read_text()
