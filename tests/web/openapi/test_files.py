"""The served files are what the tool makes of the code as it is now."""

from tools.openapi.__main__ import PAGES, files


def test_the_served_files_are_up_to_date() -> None:
    """A route, a page or a version that has changed is in them."""
    stale = [
        name for name, made in files().items() if (PAGES / name).read_bytes() != made
    ]

    assert stale == [], "run `make openapi`, which writes them again"
