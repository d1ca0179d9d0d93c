"""A browser for each module of tests, and a proxy that it looks at."""

import os
import shutil
from collections.abc import Iterator
from importlib import resources
from importlib.util import find_spec
from typing import NoReturn

import pytest
from selenium.webdriver import Chrome

from support.browser import CHROMIUM, DRIVER, LivePage, status, until
from support.browser import chromium as start
from support.processes import breakable_process, load, proxy

NO_CHROMIUM = "no Chromium: apt-get install chromium chromium-driver"
NO_AXE = "no axe-core: make test installs it"
AXE = "axe_playwright_python"


def _do_without(missing: str) -> NoReturn:
    """Leave a test out; only CI insists on all of them."""
    (pytest.fail if "CI" in os.environ else pytest.skip)(missing)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """Start Debian's Chromium."""
    binary, driver = shutil.which(CHROMIUM), shutil.which(DRIVER)
    if binary is None or driver is None:
        _do_without(NO_CHROMIUM)
    with start(binary, driver, tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="session")
def axe() -> str:
    """Read axe-core, which knows the rules of accessibility."""
    if find_spec(AXE) is None:
        _do_without(NO_AXE)
    return (resources.files(AXE) / "axe.min.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    """Run an upstream that is slow enough for calls to meet."""
    with breakable_process("--ms=20", "--ms-per-input=0.2") as url:
        yield url


@pytest.fixture(scope="module")
def url(upstream: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run a proxy."""
    folder = tmp_path_factory.mktemp("proxy") / "run"
    with proxy(folder, upstream, "The inference server has ") as url:
        yield url


@pytest.fixture
def page(chromium: Chrome, url: str) -> LivePage:
    """Open the live page, and wait until it shows something."""
    page = LivePage(chromium, url)
    page.open()
    page.until_it_says("state", "abproxy works")
    return page


@pytest.fixture(scope="module")
def experienced(url: str) -> str:
    """Let the proxy see so many calls that it has a verdict."""
    with load(url):
        until(lambda: status(url)["verdict"]["helps"])
    return url
