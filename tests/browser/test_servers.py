"""Several inference servers, as the live page shows them."""

from collections.abc import Iterator

import pytest

from support.browser import LivePage, embed
from support.processes import breakable_process, proxy

AWAY = "http://127.0.0.1:1"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run a proxy in front of two servers, one of which is not there."""
    folder = tmp_path_factory.mktemp("proxy") / "run"
    with (
        breakable_process() as there,
        proxy(folder, f"{there},{AWAY}", f"The inference server {there} has ") as url,
    ):
        for text in ("one", "two", "three"):
            embed(url, text)
        yield url


def test_each_server_has_a_line(page: LivePage) -> None:
    """With its state, and why it gets nothing."""
    page.until(lambda: len(page.rows("servers")) == 2)
    there, away = page.rows("servers")

    assert there[1].startswith("takes ")
    assert away[0] == "127.0.0.1:1"
    page.until(lambda: "model it has: cannot" in page.rows("servers")[1][1])


def test_the_first_line_says_that_one_gets_nothing(page: LivePage) -> None:
    """Whoever looks at nothing else learns that not all is well."""
    page.until_it_says("state", "abproxy works, but 1 of 2 inference servers")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_table_breaks_no_rule(page: LivePage, axe: str, scheme: str) -> None:
    """In any light."""
    page.until(lambda: len(page.rows("servers")) == 2)
    page.look_with(scheme=scheme)

    assert page.violations(axe) == []


def test_the_table_fits_a_phone(page: LivePage) -> None:
    """It scrolls by itself, and the page does not."""
    page.look_with(width=390)
    page.until(lambda: len(page.rows("servers")) == 2)

    assert page.script("return document.documentElement.scrollWidth") <= 390
