"""The live page asks only while somebody looks."""

import time

from browsing import LivePage

A_WHILE_S = 2.5
"""Long enough for a page that asks every second to have asked again."""


def test_a_page_that_nobody_sees_asks_for_nothing(page: LivePage) -> None:
    """It costs nothing then, and goes on when somebody looks again."""
    with page.out_of_sight():
        time.sleep(A_WHILE_S)  # the last question may still be on its way
        looks = page.looks

        time.sleep(A_WHILE_S)
        assert page.looks == looks

    page.until(lambda: page.looks > looks)


def test_a_pause_keeps_the_figures_as_they_are(page: LivePage) -> None:
    """Whoever wants to read or copy them presses a button, and again to go on."""
    page.press("#pause")
    page.until_it_says("state", "Paused. The figures are of ")
    looks = page.looks

    time.sleep(A_WHILE_S)
    assert page.looks == looks

    page.press("#pause")
    page.until(lambda: page.looks > looks)
    page.until_it_says("state", "abproxy works")
