"""The live page of a proxy that wants a key."""

from collections.abc import Iterator

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.keys import Keys

from support.browser import LivePage
from support.processes import proxy


@pytest.fixture(scope="module")
def url(upstream: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run a proxy with a key."""
    folder = tmp_path_factory.mktemp("proxy") / "run"
    with proxy(
        folder, upstream, "The inference server has ", "--api-key=sesame"
    ) as url:
        yield url


@pytest.fixture
def page(chromium: Chrome, url: str) -> LivePage:
    """Open the page, and wait until it asks for the key."""
    page = LivePage(chromium, url)
    page.open()
    page.until_it_says("sign-in", "This abproxy needs a key")
    return page


def test_without_a_key_no_figure_is_shown(page: LivePage) -> None:
    """The page says what it wants, and where one finds it."""
    assert "API_KEY" in page.text("sign-in")
    assert page.script("return document.getElementById('figures').offsetHeight") == 0


def test_one_can_type_at_once(page: LivePage) -> None:
    """The cursor stands in the field already."""
    page.type("sesame", Keys.ENTER)

    page.until_it_says("state", "abproxy works, and so does")


@pytest.mark.parametrize("wrong", ["open", "сезам"])
def test_a_wrong_key_is_refused_and_asked_for_again(page: LivePage, wrong: str) -> None:
    """It is said so beside the field, also if no header could take the key as it is."""
    page.type(wrong, Keys.ENTER)

    page.until_it_says("key-error", "abproxy does not accept this key.")

    page.type("sesame", Keys.ENTER)
    page.until_it_says("state", "abproxy works, and so does")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_form_breaks_no_rule(page: LivePage, axe: str, scheme: str) -> None:
    """With what it says of a wrong key."""
    page.look_with(scheme=scheme)
    page.type("open", Keys.ENTER)
    page.until_it_says("key-error", "abproxy does not accept this key.")

    assert page.violations(axe) == []


def test_the_key_is_for_calls_as_well(page: LivePage) -> None:
    """Who may see the figures may try the box."""
    page.type("sesame", Keys.ENTER)
    page.until_it_says("state", "abproxy works, and so does")

    page.press("#try button")

    page.until_it_says("answer-about", "Status 200")


def test_the_key_is_in_no_address(page: LivePage) -> None:
    """Addresses end up in logs and histories."""
    page.type("sesame", Keys.ENTER)
    page.until_it_says("state", "abproxy works, and so does")

    asked = page.script("return performance.getEntries().map((entry) => entry.name)")

    assert any("/-/status.json" in name for name in asked)
    assert "sesame" not in " ".join([*asked, page.browser.current_url])


def test_the_key_is_kept_for_the_tab_and_no_longer(page: LivePage) -> None:
    """A reload does not ask again, another tab does."""
    page.type("sesame", Keys.ENTER)
    page.until_it_says("state", "abproxy works, and so does")
    first = page.browser.current_window_handle

    page.browser.refresh()
    page.until_it_says("state", "abproxy works, and so does")
    page.browser.switch_to.new_window("tab")
    page.browser.get(f"{page.url}/-/")

    page.until_it_says("sign-in", "This abproxy needs a key")
    page.browser.close()
    page.browser.switch_to.window(first)
