"""What the pages promise is tested, by the tests that they name."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("name", ["docs/reliability.md", "SECURITY.md"])
def test_each_test_that_the_page_names_exists(name: str) -> None:
    """A promise whose test is gone is none."""
    page = (ROOT / name).read_text(encoding="utf-8")
    files = (ROOT / "tests").rglob("test_*.py")
    here = "".join(each.read_text(encoding="utf-8") for each in files)

    named = set(re.findall(r"`(test_\w+)`", page))
    assert named
    assert {name for name in named if f"def {name}(" not in here} == set()
