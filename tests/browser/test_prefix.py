"""The live page behind a load balancer that has it below a path."""

import http.client
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from selenium.webdriver import Chrome

from support.browser import LivePage
from support.processes import proxy

PREFIX = "/team/embeddings"


class Balancer(ThreadingHTTPServer):
    """Passes on what is below the prefix, and knows nothing else."""

    daemon_threads = True
    url: str
    strips: bool


class Passing(BaseHTTPRequestHandler):
    """Passes one request on."""

    server: Balancer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Pass a request on."""
        if not self.path.startswith(PREFIX + "/"):
            self._answer(404, {}, b"not here")
            return
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        target = self.path.removeprefix(PREFIX) if self.server.strips else self.path
        kept = ("Content-Type", "Accept", "Authorization")
        lines = {name: self.headers[name] for name in kept if self.headers[name]}
        behind = http.client.HTTPConnection(urlsplit(self.server.url).netloc)
        with closing(behind), suppress(ConnectionError):  # the browser may be gone
            behind.request(self.command, target, body, lines)
            answer = behind.getresponse()
            self._answer(answer.status, dict(answer.getheaders()), answer.read())

    do_POST = do_GET  # noqa: N815

    def _answer(self, status: int, lines: dict[str, str], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in lines.items():
            if name not in {"Content-Length", "Transfer-Encoding", "Connection"}:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Write nothing."""


@contextmanager
def balancer(url: str, *, strips: bool) -> Iterator[str]:
    """Run a load balancer in front of a proxy."""
    with Balancer(("127.0.0.1", 0), Passing) as server:
        server.url, server.strips = url, strips
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}{PREFIX}"
        finally:
            server.shutdown()


@pytest.fixture(scope="module", params=[True, False], ids=["strips", "keeps"])
def prefixed(
    request: pytest.FixtureRequest,
    upstream: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[str]:
    """Run a proxy behind a load balancer that strips or keeps the prefix."""
    options = () if request.param else (f"--path-prefix={PREFIX}",)
    folder = tmp_path_factory.mktemp("prefixed") / "run"
    with (
        proxy(folder, upstream, "The inference server has ", *options) as url,
        balancer(url, strips=request.param) as outside,
    ):
        yield outside


def test_the_page_works_below_a_path(chromium: Chrome, prefixed: str) -> None:
    """Its files, its figures and its form: nothing is asked of the root."""
    page = LivePage(chromium, prefixed)
    page.open()
    page.until_it_says("state", "abproxy works")
    page.press("#try button")
    page.until_it_says("answer-about", "Status 200 after ")

    assert page.console == []


@pytest.mark.parametrize("link", ["API", "Metrics", "Live"])
def test_its_links_stay_below_the_path(
    chromium: Chrome, prefixed: str, link: str
) -> None:
    """From each page to the others."""
    page = LivePage(chromium, prefixed)
    page.open("/-/")
    target = page.script(
        "return [...document.querySelectorAll('nav a')]"
        ".find(link => link.textContent == a).href",
        link,
    )

    assert target.startswith(prefixed + "/")
    answer = http.client.HTTPConnection(urlsplit(target).netloc)
    answer.request("GET", urlsplit(target).path)
    assert answer.getresponse().status == 200
    answer.close()


def test_the_address_without_a_slash_leads_below_the_path(
    chromium: Chrome, prefixed: str
) -> None:
    """Where the links are right."""
    chromium.get(f"{prefixed}/-")

    assert chromium.current_url == f"{prefixed}/-/"


def test_no_page_names_a_path_of_the_root() -> None:
    """Neither a page nor a script."""
    pages = Path(__file__).parents[2] / "abproxy/web/pages"
    texts = [
        file.read_text()
        for file in pages.iterdir()
        if file.suffix in {".html", ".css", ".js"}
    ]

    assert not [
        text
        for text in texts
        for mark in ('href="/', 'src="/', 'from "/', "url(/", 'fetch("/')
        if mark in text
    ]
