"""The live page while the proxy, or the server behind it, is away."""

from pathlib import Path
from urllib.parse import urlsplit

import pytest
from selenium.webdriver import Chrome

from support.browser import LivePage, embed, status
from support.processes import breakable_process, proxy


def test_a_restart_is_told_and_survived(
    chromium: Chrome, upstream: str, tmp_path: Path
) -> None:
    """The page says that nobody answers, and goes on by itself with new figures."""
    with proxy(tmp_path / "first", upstream, "The inference server has ") as url:
        page = LivePage(chromium, url)
        page.open()
        page.until_it_says("judged", "Judged by 0 calls")
        embed(url, "before")
        page.until_it_says("judged", "Judged by 1 call in")
        page.script("window.isTheSame = true")

    page.until_it_says("state", "abproxy cannot be reached; trying again every second")
    assert "The figures are of " in page.text("state")
    port = f"--port={urlsplit(url).port}"
    with proxy(tmp_path / "second", upstream, "The inference server has ", port):
        page.until_it_says("state", "abproxy works")

        assert "Judged by 0 calls" in page.text("judged")
        assert page.bars == 0
        embed(url, "after")
        page.until_it_says("judged", "Judged by 1 call in")
        page.until(lambda: page.bars == 1)
        assert page.script("return window.isTheSame")


def test_batches_of_a_second_life_are_not_taken_for_old_ones(
    chromium: Chrome, upstream: str, tmp_path: Path
) -> None:
    """They are numbered from 1 again, like those that the page has seen."""
    with proxy(tmp_path / "first", upstream, "The inference server has ") as url:
        page = LivePage(chromium, url)
        page.open()
        before = [embed(url, "before") for _ in range(10)]
        page.until_it_says("judged", "Judged by 10 calls")
        page.press("#pause")

    port = f"--port={urlsplit(url).port}"
    with proxy(tmp_path / "second", upstream, "The inference server has ", port):
        after = [embed(url, "after") for _ in range(12)]
        page.press("#pause")
        page.until_it_says("judged", "Judged by 12 calls")

        assert page.bars == 12
        assert before + after == [200] * 22


@pytest.fixture
def dead_upstream() -> str:
    """Have an upstream that is gone again."""
    with breakable_process() as url:
        pass
    return url


def test_a_server_that_is_away_is_told(
    chromium: Chrome, dead_upstream: str, tmp_path: Path
) -> None:
    """In words that say which of the two does not answer, and why."""
    options = ("--connect-patience=0.1",)
    with proxy(tmp_path / "run", dead_upstream, "answers on", *options) as url:
        page = LivePage(chromium, url)
        page.open()

        page.until_it_says("state", "The inference server does not answer: cannot")
        page.press("#try button")

        page.until_it_says("answer-about", "Status 502 after ")
        page.until(lambda: "upstream unreachable" in page.rows("errors")[0])
        assert status(url)["errors"][0]["message"] == page.rows("errors")[0][3]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_an_alarm_breaks_no_rule(
    chromium: Chrome, dead_upstream: str, tmp_path: Path, axe: str, scheme: str
) -> None:
    """It can be read in every light."""
    with proxy(tmp_path / "run", dead_upstream, "answers on") as url:
        page = LivePage(chromium, url)
        page.open()
        page.look_with(scheme=scheme)
        page.until_it_says("state", "The inference server does not answer: cannot")

        assert page.violations(axe) == []
