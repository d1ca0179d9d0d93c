"""The live page asks only while somebody looks."""

import time

import pytest

from support.browser import LivePage

A_WHILE_S = 2.5
"""Long enough for a page that asks every second to have asked again."""


@pytest.fixture
def counting(page: LivePage) -> LivePage:
    """Count the questions of the page, also those that are not answered yet."""
    page.script("""
        const ask = window.fetch;
        window.asked = 0;
        window.fetch = (...question) => {
            window.asked++;
            return ask(...question);
        };""")
    return page


def _asked(page: LivePage) -> int:
    return int(page.script("return window.asked"))


def test_a_page_that_nobody_sees_asks_for_nothing(counting: LivePage) -> None:
    """It costs nothing then, and goes on when somebody looks again."""
    with counting.out_of_sight():
        asked = _asked(counting)

        time.sleep(A_WHILE_S)
        assert _asked(counting) == asked

    counting.until(lambda: _asked(counting) > asked)


def test_a_pause_keeps_the_figures_as_they_are(counting: LivePage) -> None:
    """Whoever wants to read or copy them presses a button, and again to go on."""
    counting.press("#pause")
    counting.until_it_says("state", "Paused. The figures are of ")
    asked = _asked(counting)

    time.sleep(A_WHILE_S)
    assert _asked(counting) == asked

    counting.press("#pause")
    counting.until(lambda: _asked(counting) > asked)
    counting.until_it_says("state", "abproxy works")
