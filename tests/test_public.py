"""What others rely on by its name stays as it is, unless it is changed on purpose."""

from pathlib import Path

import pytest

from tools.public import FILE, SUBJECTS, read_file

DOCS = Path(__file__).parent.parent / "docs"
NEVER_COUNTED = {"overload"}
"""The reason of what several errors have in common, each of which has its own."""

HOW = f"if others shall see this change: `make public`, which writes {FILE.name}"


@pytest.mark.parametrize("subject", SUBJECTS)
def test_what_is_public_is_as_it_was(subject: str) -> None:
    """Dashboards, scripts and compose files break with a name."""
    kept, is_now = read_file()[subject], SUBJECTS[subject]()

    assert is_now == kept, HOW


def test_nothing_is_kept_that_is_not_read() -> None:
    """What is not compared may say anything."""
    assert read_file().keys() == SUBJECTS.keys()


def test_each_metric_and_each_value_of_its_labels_is_explained() -> None:
    """Someone who sees it on a dashboard looks for it on these pages."""
    pages = [DOCS / "operating.md", DOCS / "workers.md"]
    page = "".join(each.read_text(encoding="utf-8") for each in pages)
    metrics = read_file()["metrics"]
    values = {value for each in metrics.values() for value in each["begins_with"]}

    assert [name for name in metrics if name not in page] == []
    assert {name for name in values if f"`{name}`" not in page} == NEVER_COUNTED
