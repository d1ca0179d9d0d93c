"""Our pages for everybody: small screens, keyboards, screen readers, dark rooms."""

import re
from typing import Any

import pytest
from selenium.webdriver.common.keys import Keys

from support.browser import LivePage

SCHEMES = ("light", "dark")
NARROW = (390, 320)
FULL = {"upstream": {"state": "full", "why": "it answers with 429"}}


@pytest.fixture
def full(experienced: str, page: LivePage) -> LivePage:
    """Show everything that the page has, of a proxy that has seen something."""
    assert page.url == experienced
    page.press("#try button")
    page.until_it_says("answer-about", "Status 200")
    page.open_everything()
    page.press("#pause")
    return page


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_live_page_breaks_no_rule(full: LivePage, axe: str, scheme: str) -> None:
    """Names, roles, order and contrast, with everything unfolded."""
    full.look_with(scheme=scheme)

    assert full.violations(axe) == []


@pytest.mark.parametrize("scheme", SCHEMES)
def test_an_idle_page_breaks_no_rule(page: LivePage, axe: str, scheme: str) -> None:
    """What is empty has a name as well."""
    page.look_with(scheme=scheme)

    assert page.violations(axe) == []


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_description_breaks_no_rule(page: LivePage, axe: str, scheme: str) -> None:
    """The page that shows the API."""
    page.open("/-/docs")
    page.look_with(scheme=scheme)
    page.unfold()

    assert page.violations(axe) == []


@pytest.mark.parametrize("width", NARROW)
def test_the_live_page_fits_every_screen(full: LivePage, width: int) -> None:
    """What is wider has a place of its own to be moved in."""
    full.look_with(width=width)

    assert full.script("return document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("width", NARROW)
def test_the_description_fits_every_screen(page: LivePage, width: int) -> None:
    """The page that shows the API."""
    page.open("/-/docs")
    page.look_with(width=width)
    page.unfold()

    assert page.script("return document.documentElement.scrollWidth") == width


def test_the_keyboard_goes_through_the_page_as_one_reads(page: LivePage) -> None:
    """From the top, with a way past what is the same on every page."""
    order = [page.tab() for _ in range(6)]

    assert order == [
        "Skip to the figures",
        "Live",
        "API",
        "Metrics",
        "Pause",
        "As a table",
    ]


def test_the_keyboard_may_skip_to_the_figures(page: LivePage) -> None:
    """The first thing it comes to."""
    page.tab()
    page.type(Keys.ENTER)

    assert page.script("return document.activeElement.id") == "main"


def test_what_has_the_focus_is_seen(page: LivePage) -> None:
    """By a frame around it."""
    page.tab()
    page.tab()

    assert (
        page.script("return getComputedStyle(document.activeElement).outlineStyle")
        == "solid"
    )


def test_a_screen_reader_is_not_told_of_a_verdict_that_moves(page: LivePage) -> None:
    """While calls come and go, what limits them is now this and now that."""
    advice = {"setting": "BUDGET", "why": "full batches waited"}
    slot = _verdict(limited_by="slot", slot_limited=0.21)
    budget = _verdict(limited_by="budget", budget_limited=0.22, advice=advice)

    assert page.look_at(*[slot, budget] * 15) == []


def test_a_screen_reader_is_told_once_of_a_verdict_that_stays(page: LivePage) -> None:
    """The answers, without the figures: these move on."""
    looks = [
        _verdict(limited_by="slot", slot_limited=0.2 + look / 100, calls=1000 + look)
        for look in range(30)
    ]

    assert page.look_at(*looks) == [
        "Is batching helping? Yes. What limits it? Slots. What to change? Nothing."
    ]


def test_a_screen_reader_is_not_told_each_time_a_server_is_full(page: LivePage) -> None:
    """A busy one has no room now, and some a moment later."""
    assert page.look_at(*[FULL, {}] * 15) == []


def test_a_screen_reader_is_told_once_of_a_server_that_stays_full(
    page: LivePage,
) -> None:
    """That is worth an interruption."""
    assert page.look_at(*[FULL] * 30) == [
        "The inference server is overloaded: it answers with 429. Calls wait."
    ]


def _verdict(**differs: Any) -> dict[str, Any]:
    """Make a state of a proxy that is asked, and does some good."""
    return {"verdict": {"helps": True, "text": "Batching helps.", **differs}}


def test_plots_say_what_they_show(full: LivePage) -> None:
    """In a sentence for who does not see them."""
    assert re.search(r"\d calls and .*\d requests a second", full.text("rates-text"))
    assert re.search(r"[1-9].* on average, at most \d", full.text("sizes-text"))
