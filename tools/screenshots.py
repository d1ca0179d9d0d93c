"""
The pictures of the live page in `docs/images`, made by `make screenshots`.

The small model works behind the proxy, first for one client alone and then for
fifty, so that there is something to compare.
"""

import re
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from support.browser import CHROMIUM, DRIVER, LivePage, chromium, status, until
from support.processes import load, running

IMAGES = Path(__file__).parent.parent / "docs/images"
ENOUGH_ALONE, ENOUGH_TOGETHER = 50, 3000
LAST = "sizes-more"
WIDE = {"width": 1280, "scale": 0.8}
NARROW = {"width": 390}


def take(page: LivePage) -> None:
    """Take all pictures, while calls come."""
    page.open()
    with load(page.url, clients=1):
        _until_answered(page.url, ENOUGH_ALONE)
    with load(page.url, clients=50):
        _until_answered(page.url, ENOUGH_TOGETHER)
        page.picture(IMAGES / "live-light.png", LAST, **WIDE)
        page.picture(IMAGES / "live-dark.png", LAST, **WIDE, scheme="dark")
        page.picture(IMAGES / "live-narrow.png", LAST, **NARROW)


def _until_answered(url: str, calls: int) -> None:
    until(lambda: status(url)["totals"]["calls"] > calls, patience_s=120)


def main() -> None:
    """Start the proxy with its model and a browser."""
    binary, driver = shutil.which(CHROMIUM), shutil.which(DRIVER)
    assert binary, driver
    options = ("abproxy", "--port=0", "--embedded")
    with (
        TemporaryDirectory() as folder,
        running(Path(folder, "run"), " says ", *options) as proxy,
        chromium(binary, driver, Path(folder, "profile")) as browser,
    ):
        [url] = re.findall(r"answers on (\S+);", proxy.log)
        take(LivePage(browser, url))


if __name__ == "__main__":
    main()
