"""What others rely on by its name stays as it is, unless it is changed on purpose."""

import pytest

from tools.public import FILE, SUBJECTS, read_file

HOW = f"if others shall see this change: `make public`, which writes {FILE.name}"


@pytest.mark.parametrize("subject", SUBJECTS)
def test_what_is_public_is_as_it_was(subject: str) -> None:
    """Dashboards, scripts and compose files break with a name."""
    kept, is_now = read_file()[subject], SUBJECTS[subject]()

    assert is_now == kept, HOW


def test_nothing_is_kept_that_is_not_read() -> None:
    """What is not compared may say anything."""
    assert read_file().keys() == SUBJECTS.keys()
