"""A real Chromium in front of our pages, and calls for them to show."""

import json
import time
import urllib.request
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import frozen
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

CHROMIUM, DRIVER = "chromium", "chromedriver"

QUIET = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
"""Nothing is shown, and no server but the page's own is asked."""

PATIENCE_S = 40

PLAIN: dict[str, dict[str, Any]] = {
    "upstream": {"state": "up"},
    "flow": {"upstream_up": True},
    "verdict": {"helps": None, "text": "", "advice": None, "limited_by": "nothing"},
    "sharing": {"apart": [], "alone": [], "relayed": []},
}
"""All is well, and there is no verdict yet."""

LONG = 20
"""Looks after which the page has announced what there is to announce."""

SHOW = """
    const [states, untold, done] = arguments;
    const announced = [], ask = window.fetch, later = window.setTimeout;
    const listen = (place) => new MutationObserver(
        () => announced.push(place.textContent)
    ).observe(place, { subtree: true, childList: true, characterData: true });
    const answer = async ({ upstream, flow, verdict, sharing }) => {
        const real = await (await ask("/-/status.json")).json();
        return new Response(JSON.stringify({ ...real, batches: [],
            upstream: { ...real.upstream, ...upstream },
            flow: { ...real.flow, ...flow },
            verdict: { ...real.verdict, ...verdict }, sharing }));
    };
    let looks = 0;
    window.setTimeout = (goOn) => later(goOn, 0);
    window.fetch = () => {
        const places = document.querySelectorAll("[role=status]");
        if (looks === untold) places.forEach(listen);
        if (looks < states.length) return answer(states[looks++]);
        later(() => done(announced), 0);
        return new Promise(() => {});
    };"""
"""
Answers the page with states of a test's own, without waiting in between, and
says after the last of them what was announced after those *untold*.
"""


@contextmanager
def chromium(binary: str, driver: str, profile: Path) -> Iterator[Chrome]:
    """Start a browser with a new *profile*."""
    options = ChromeOptions()
    options.binary_location = binary
    for argument in (*QUIET, f"--user-data-dir={profile}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # With its path given, no driver is looked for or downloaded.
    browser = Chrome(options=options, service=Service(driver))
    try:
        yield browser
    finally:
        browser.quit()


def until(
    happened: Callable[[], Any],
    why_not: Callable[[], str] = str,
    patience_s: float = PATIENCE_S,
) -> Any:
    """Wait until something has *happened*; fail if it does not."""
    give_up_at = time.monotonic() + patience_s
    while not (found := happened()):
        assert time.monotonic() < give_up_at, why_not()
        time.sleep(0.05)
    return found


@frozen
class LivePage:
    """The page as its reader sees it."""

    browser: Chrome
    url: str
    """Where the proxy answers."""

    def open(self, path: str = "/-/") -> None:
        """Go to a page of ours, with nothing left of what was before."""
        self.browser.get("about:blank")
        self.look_with()
        self.browser.get(self.url + path)
        self.browser.execute_script("sessionStorage.clear()")
        self.browser.get_log("browser")
        self.browser.refresh()

    def look_with(
        self,
        *,
        width: int = 1280,
        height: int = 900,
        scheme: str = "light",
        scale: float = 1,
    ) -> None:
        """Take a screen of some size, in light or dark."""
        feature = {"name": "prefers-color-scheme", "value": scheme}
        screen = {"width": width, "height": height, "deviceScaleFactor": scale}
        command = self.browser.execute_cdp_cmd
        command("Emulation.setEmulatedMedia", {"features": [feature]})
        command("Emulation.setDeviceMetricsOverride", {**screen, "mobile": False})

    def text(self, name: str) -> str:
        """Read what stands in an element."""
        return str(self.script("return document.getElementById(a).innerText", name))

    def figures(self, name: str) -> dict[str, str]:
        """Read a list of figures: what they count, and the number."""
        script = """
            const pairs = [...document.querySelectorAll(`#${a} > div`)];
            return Object.fromEntries(pairs.map((pair) => [...pair.children].map(
                (part) => part.textContent)));"""
        return dict(self.script(script, name))

    def rows(self, name: str) -> list[list[str]]:
        """Read a table."""
        script = """
            return [...document.getElementById(a).rows].map((row) =>
                [...row.cells].map((cell) => cell.textContent));"""
        return list(self.script(script, name))

    def lower_edge(self, name: str) -> float:
        """Say how far down an element ends."""
        element = "document.getElementById(a)"
        return float(
            self.script(f"return {element}.getBoundingClientRect().bottom", name)
        )

    def script(self, body: str, *arguments: Any) -> Any:
        """Ask the page itself; the first argument is called `a`."""
        return self.browser.execute_script(f"const a = arguments[0];{body}", *arguments)

    def press(self, selector: str) -> None:
        """Press a button."""
        self.browser.find_element("css selector", selector).click()

    def write(self, name: str, text: str) -> None:
        """Write into a field, in the place of what was there."""
        field = self.browser.find_element("id", name)
        field.clear()
        field.send_keys(text)

    def choose(self, name: str, value: str) -> None:
        """Choose from a list."""
        Select(self.browser.find_element("id", name)).select_by_visible_text(value)

    def type(self, *keys: str) -> None:
        """Press keys, wherever the focus is."""
        self.browser.switch_to.active_element.send_keys(*keys)

    def tab(self) -> str:
        """Go on with the keyboard; says what has the focus then."""
        self.type(Keys.TAB)
        return str(self.script("return document.activeElement.innerText"))

    def picture(self, file: Path, last: str, **screen: Any) -> None:
        """Take a picture of the page down to the element *last*."""
        self.look_with(**screen)
        self.look_with(**screen, height=round(self.lower_edge(last)) + 16)
        looks = self.looks
        self.until(lambda: self.looks > looks + 1)
        # Unlike the driver's own picture, this one is packed well.
        taken = self.browser.execute_cdp_cmd("Page.captureScreenshot", {})
        file.write_bytes(b64decode(taken["data"]))

    def look_at(self, *changes: dict[str, dict[str, Any]]) -> list[str]:
        """
        Let the page look at each state once, after all was well for long.

        Says what it announced.  A change is what differs from all being well.
        """
        states = [
            {name: part | change.get(name, {}) for name, part in PLAIN.items()}
            for change in [{}] * LONG + [*changes]
        ]
        return list(self.browser.execute_async_script(SHOW, states, LONG))

    def unfold(self) -> None:
        """Open all that is folded."""
        folded = "document.querySelectorAll('details:not([open])')"
        self.script(f"for (const each of {folded}) each.open = true")

    def open_everything(self) -> None:
        """Open all that is folded on the live page, and wait until it is filled."""
        self.unfold()
        self.until(lambda: self.rows("rates-rows") and self.rows("sizes-rows"))

    def violations(self, axe: str) -> list[Any]:
        """Say which rules of accessibility the page breaks, by axe-core, and where."""
        self.script(axe)
        return list(
            self.browser.execute_async_script("""
                const told = ({ id, nodes }) => [id, nodes.map((node) =>
                    [node.html, node.failureSummary])];
                const done = (found) => arguments[0](found.violations.map(told));
                axe.run().then(done);""")
        )

    def until(self, happened: Callable[[], Any]) -> Any:
        """Wait until something has *happened*; fail if it does not."""
        return until(happened, lambda: self.text("state"))

    def until_it_says(self, name: str, part: str) -> str:
        """Wait until an element has a text with *part* in it; says the whole."""
        self.until(lambda: part in self.text(name))
        return self.text(name)

    @contextmanager
    def out_of_sight(self) -> Iterator[None]:
        """Hide the page for a while: its window is minimized."""
        command = self.browser.execute_cdp_cmd
        window = {"windowId": command("Browser.getWindowForTarget", {})["windowId"]}
        minimized = {"bounds": {"windowState": "minimized"}}
        command("Browser.setWindowBounds", window | minimized)
        self.until(lambda: self.script("return document.hidden"))
        yield
        normal = {"bounds": {"windowState": "normal"}}
        command("Browser.setWindowBounds", window | normal)

    @property
    def bars(self) -> int:
        """How many batches are drawn."""
        return int(
            self.script("return document.querySelectorAll('#sizes rect').length")
        )

    @property
    def console(self) -> list[str]:
        """What the browser has complained of since the page was opened."""
        return [str(entry["message"]) for entry in self.browser.get_log("browser")]

    @property
    def looks(self) -> int:
        """How often the page has asked how things are."""
        script = """
            return performance.getEntriesByType("resource").filter(
                (entry) => entry.name.includes("/-/status.json")).length;"""
        return int(self.script(script))


def status(url: str) -> Any:
    """Ask the proxy how things are."""
    with urllib.request.urlopen(f"{url}/-/status.json", timeout=30) as answer:  # noqa: S310
        return json.load(answer)


def embed(url: str, *texts: str, **options: Any) -> int:
    """Send one call; says the status of the answer."""
    body = json.dumps({"inputs": texts, **options}).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/embed", body, headers)  # noqa: S310
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        answer.read()
        return int(answer.status)
