"""
Write the document and its page to where abproxy serves them from.

Run by `make openapi`, whenever a route, a page or the version has changed.
"""

from pathlib import Path

import msgspec

from tools.openapi.document import describe
from tools.openapi.page import page

__all__ = ["PAGES", "files"]

PAGES = Path(__file__).parents[2] / "abproxy" / "web" / "pages"


def files() -> dict[str, bytes]:
    """Return the content of each file by its name in `PAGES`."""
    document = describe()
    return {"openapi.json": msgspec.json.encode(document), "docs.html": page(document)}


if __name__ == "__main__":
    for name, content in files().items():
        (PAGES / name).write_bytes(content)
