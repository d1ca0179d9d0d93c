"""Calls that wait for each other, as the live page shows them."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.browser import LivePage, embed
from support.processes import proxy


@pytest.fixture(scope="module")
def url(upstream: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run a proxy that holds every call until there is another."""
    folder = tmp_path_factory.mktemp("proxy") / "run"
    options = ("--max-batch-size=2", "--max-wait-time=600000")
    with proxy(folder, upstream, "The inference server has ", *options) as url:
        yield url


@pytest.fixture
def clients() -> Iterator[ThreadPoolExecutor]:
    """Let others call meanwhile."""
    with ThreadPoolExecutor() as clients:
        yield clients


def test_the_box_tells_how_many_shared_its_batch(
    page: LivePage, clients: ThreadPoolExecutor
) -> None:
    """A call out of the browser travels with those of other clients."""
    other = clients.submit(embed, page.url, "somebody else's")

    page.write("texts", "one\ntwo")
    page.press("#try button")

    about = page.until_it_says("answer-about", "Status 200")
    assert "2 rows of 4 numbers" in about
    assert "2 calls shared its batch; it waited" in about
    assert other.result() == 200


def test_who_waits_is_told_without_what_they_say(
    page: LivePage, clients: ThreadPoolExecutor
) -> None:
    """The options that keep calls apart are named; texts are nobody's business."""
    one = clients.submit(embed, page.url, "a secret", truncate=True)

    page.until(lambda: page.rows("lanes")[0][0] == "/embed")

    assert page.rows("lanes")[0][1:4] == ["truncate", "1", "1"]
    assert "a secret" not in page.script("return document.body.innerText")
    assert embed(page.url, "another", truncate=True) == one.result() == 200
