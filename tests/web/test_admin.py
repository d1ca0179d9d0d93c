"""Our own pages: what is ours, who may see it, and how it is sent."""

import json
import os
import shutil
import subprocess
from typing import Any

import pytest
from attrs import define, field
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from twisted.web.resource import Resource
from twisted.web.server import Request

from abproxy import __version__
from support.client import Answer
from support.proxy import InMemoryProxy, in_memory_proxy

JSON = ("Content-Type", "application/json")
KEY = ("Authorization", "Bearer one")

HTML = "text/html; charset=utf-8"
TEXT = "text/plain; version=0.0.4; charset=utf-8"
PAGES = {
    "/metrics": TEXT,
    "/-/": HTML,
    "/-/status.json": "application/json",
    "/-/healthy": "application/json",
    "/-/ready": "application/json",
    "/-/docs": HTML,
    "/-/openapi.json": "application/json",
    "/-/live.js": "text/javascript; charset=utf-8",
    "/-/page.css": "text/css; charset=utf-8",
}
BELOW = [path for path in PAGES if path.startswith("/-/")]
OUTSIDE = ["/health", "/ping", "/metrics"]
HEALTH = ["/health", "/ping", "/-/healthy", "/-/ready"]
PROTECTED = ["/-/status.json", "/-/nobody/knows", "/-/docs/", "/-/%68ealthy"]
PUBLIC = [path for path in [*OUTSIDE, *BELOW] if path not in {"/-/", *PROTECTED}]
NOT_OURS = ["//-/", "/-x", "/%2D/", "/health/", "//health", "/metrics/", "/x/-/"]
NO_PAGES = ["/-/healthy/", "/-/%68ealthy", "/-/../embed", "/-/%ff", "/-//", "/-/-/"]


@define(eq=False, slots=False)
class Upstream(Resource):
    """Says what it was asked, and answers calls with one row."""

    isLeaf = True
    asked: list[tuple[str, str]] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        super().__init__()

    def render(self, request: Request) -> bytes:
        self.asked.append((request.method.decode(), request.uri.decode()))
        return b"[[1]]"


@pytest.fixture
def upstream() -> Upstream:
    """Make an upstream."""
    return Upstream()


@pytest.fixture
def proxy(upstream: Upstream) -> InMemoryProxy:
    """Make a proxy that shows its pages."""
    return in_memory_proxy(upstream)


@pytest.fixture
def strict(upstream: Upstream) -> InMemoryProxy:
    """Make a proxy that asks for a key."""
    return in_memory_proxy(upstream, api_keys=("one",))


@pytest.fixture
def apart(upstream: Upstream) -> InMemoryProxy:
    """Make a proxy whose pages are at a port of their own."""
    return in_memory_proxy(upstream, operations_port="0")


def embed(proxy: InMemoryProxy) -> None:
    """Have one call answered."""
    answer = proxy.ask("POST", "/embed", b'{"inputs":"a"}', JSON)
    assert answer.status == 200


def without(answer: Answer, *names: str) -> dict[str, str]:
    """Return the header lines but those of *names*."""
    return {name: value for name, value in answer.headers if name not in names}


# What there is


@pytest.mark.parametrize(("path", "kind"), PAGES.items())
def test_each_page_is_there(proxy: InMemoryProxy, path: str, kind: str) -> None:
    """With its type and its length."""
    answer = proxy.ask("GET", path)

    assert answer.status == 200
    assert answer.header("Content-Type") == kind
    assert answer.header("Content-Length") == str(len(answer.body))
    assert answer.body


@pytest.mark.parametrize("path", [path for path in PAGES if path != "/metrics"])
def test_head_is_the_same_without_the_body(proxy: InMemoryProxy, path: str) -> None:
    """A client that only wants to know whether it is there asks like this."""
    whole = proxy.ask("GET", path)

    head = proxy.ask("HEAD", path)

    assert head.status == 200
    assert head.body == b""
    assert without(head, "Date") == without(whole, "Date")


def test_head_of_the_figures_has_no_body(proxy: InMemoryProxy) -> None:
    """Its length may differ, as the figures do."""
    answer = proxy.ask("HEAD", "/metrics")

    assert (answer.status, answer.body) == (200, b"")
    assert int(str(answer.header("Content-Length"))) > 1000


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "get", "BREW"])
@pytest.mark.parametrize("path", BELOW)
def test_our_pages_can_only_be_read(
    proxy: InMemoryProxy, upstream: Upstream, path: str, method: str
) -> None:
    """Any other method is told which there are, and goes nowhere."""
    answer = proxy.ask(method, path, b"{}")

    assert answer.status == 405
    assert answer.header("Allow") == "GET, HEAD"
    assert answer.json["error"] == "this page can only be read: use GET"
    assert upstream.asked == []


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "get"])
@pytest.mark.parametrize("path", OUTSIDE)
def test_what_we_only_read_is_the_upstreams_otherwise(
    proxy: InMemoryProxy, upstream: Upstream, path: str, method: str
) -> None:
    """A server may have a use for `POST /health`."""
    answer = proxy.ask(method, path)

    assert (answer.status, answer.body) == (200, b"[[1]]")
    assert upstream.asked == [(method, path)]


@pytest.mark.parametrize("path", NOT_OURS)
def test_a_path_that_looks_like_ours_is_the_upstreams(
    proxy: InMemoryProxy, upstream: Upstream, path: str
) -> None:
    """Nothing is decoded, merged or cut off."""
    proxy.ask("GET", path)

    assert upstream.asked == [("GET", path)]


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("path", ["/-/nobody/knows", *NO_PAGES])
def test_below_ours_nothing_is_the_upstreams(
    proxy: InMemoryProxy, upstream: Upstream, path: str, method: str
) -> None:
    """What is not there is a 404 that says what is."""
    answer = proxy.ask(method, path)

    assert answer.status == 404
    assert answer.json["error_type"] == "NotFound"
    assert upstream.asked == []


def test_a_page_that_is_not_there_says_which_are(proxy: InMemoryProxy) -> None:
    """By their paths."""
    answer = proxy.ask("GET", "/-/nobody/knows")

    _, _, listed = answer.json["error"].partition("what there is: ")
    pages = {path for path in PAGES if not path.endswith((".js", ".css"))}
    assert set(listed.split(", ")) == {*OUTSIDE, *pages}


@pytest.mark.parametrize("path", ["/-", "/-?x=1"])
def test_the_address_without_a_slash_leads_to_the_page(
    strict: InMemoryProxy, path: str
) -> None:
    """A reader who types it gets to where the links of the page are right."""
    answer = strict.ask("GET", path)

    assert (answer.status, answer.body) == (308, b"")
    assert answer.header("Location") == "-/"


@pytest.mark.parametrize("path", ["/-/healthy", "/-/status.json", "/metrics"])
def test_a_query_does_not_change_whose_page_it_is(
    proxy: InMemoryProxy, upstream: Upstream, path: str
) -> None:
    """Whatever is in it."""
    answer = proxy.ask("GET", f"{path}?name[]=x&/-/&%ff=%zz")

    assert answer.status == 200
    assert upstream.asked == []


def test_an_absolute_target_means_its_path(proxy: InMemoryProxy) -> None:
    """As it does everywhere else."""
    answer = proxy.ask("GET", "http://door/-/healthy")

    assert answer.json == {"healthy": True}


# Bodies of requests


@pytest.mark.parametrize("path", ["/-/healthy", "/health", "/-/nobody/knows"])
def test_a_body_is_read_and_thrown_away(proxy: InMemoryProxy, path: str) -> None:
    """It is not taken for the next request."""
    client = proxy.connect()

    client.ask("GET", path, b"GET / HTTP/1.1\r\n\r\n")
    proxy.flush()
    client.ask("GET", "/-/healthy")

    _, last = client.answers("GET")
    assert last.json == {"healthy": True}
    client.leave()


def test_an_answer_does_not_wait_for_a_body(proxy: InMemoryProxy) -> None:
    """The next request does."""
    client = proxy.connect()

    client.send(b"GET /-/healthy HTTP/1.1\r\nContent-Length: 5\r\n\r\nab")
    early = client.answers("GET")
    client.send(b"cdeGET /-/ready HTTP/1.1\r\n\r\n")
    proxy.flush()

    assert [answer.status for answer in early] == [200]
    assert client.answers("GET")[1].json["ready"] is True
    client.leave()


def test_a_body_has_a_limit_here_too(upstream: Upstream) -> None:
    """What is of no use is not read without end."""
    proxy = in_memory_proxy(upstream, max_body_bytes=10)

    answer = proxy.ask("POST", "/-/status.json", b"x" * 11)

    assert answer.status == 413


# Keys


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", PUBLIC)
def test_public_pages_want_no_key(
    strict: InMemoryProxy, path: str, method: str
) -> None:
    """Probes, scrapers and readers of documentation have none."""
    answer = strict.ask(method, path)

    assert answer.status == 200


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@pytest.mark.parametrize("path", PROTECTED)
@pytest.mark.parametrize("shown", [[], [("Authorization", "Bearer nope")]])
def test_the_rest_wants_a_key(
    strict: InMemoryProxy, path: str, method: str, shown: list[tuple[str, str]]
) -> None:
    """Also what is not there: a client without one learns nothing."""
    answer = strict.ask(method, path, b"", *shown)

    assert (answer.status, answer.body) == (401, b"")


@pytest.mark.parametrize("path", [path for path in BELOW if path in PUBLIC])
def test_public_pages_are_public_to_read(strict: InMemoryProxy, path: str) -> None:
    """For anything else one wants a key, as everywhere."""
    answer = strict.ask("POST", path)

    assert answer.status == 401


@pytest.mark.parametrize(
    ("path", "status"), [("/-/status.json", 200), ("/-/", 200), ("/-/nope", 404)]
)
def test_a_key_opens_all_pages(strict: InMemoryProxy, path: str, status: int) -> None:
    """The same with which calls are accepted."""
    answer = strict.ask("GET", path, b"", KEY)

    assert answer.status == status


@pytest.mark.parametrize("shown", [[], [("Authorization", "Bearer nope")]])
def test_the_live_page_asks_for_the_key(
    strict: InMemoryProxy, shown: list[tuple[str, str]]
) -> None:
    """A browser shows the form though the status is 401; no figure is in it."""
    whole = strict.ask("GET", "/-/", b"", KEY)

    answer = strict.ask("GET", "/-/", b"", *shown)

    assert answer.status == 401
    assert answer.body == whole.body
    assert b'<form id="sign-in"' in answer.body


def test_what_the_sign_in_form_needs_is_public(strict: InMemoryProxy) -> None:
    """Its script and its looks are asked for without the key."""
    found = [strict.ask("GET", path) for path in ("/-/live.js", "/-/page.css")]

    assert [answer.status for answer in found] == [200, 200]


# How they are sent


@pytest.mark.parametrize("path", ["/-/", "/-/docs", "/metrics", "/-/live.js"])
def test_pages_load_nothing_from_elsewhere(proxy: InMemoryProxy, path: str) -> None:
    """And no page can frame them, or make them send a form away."""
    answer = proxy.ask("GET", path)

    policy = str(answer.header("Content-Security-Policy")).split("; ")
    assert set(policy) == {
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src data:",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    }
    assert answer.header("X-Content-Type-Options") == "nosniff"
    assert answer.header("Referrer-Policy") == "no-referrer"


def test_the_form_for_a_key_is_as_safe_as_the_page(strict: InMemoryProxy) -> None:
    """It is where the key is typed."""
    answer = strict.ask("GET", "/-/")

    assert "frame-ancestors 'none'" in str(answer.header("Content-Security-Policy"))


@pytest.mark.parametrize("path", BELOW)
def test_no_page_of_another_origin_may_read_ours(
    proxy: InMemoryProxy, path: str
) -> None:
    """A browser inside a network is no way into it."""
    answer = proxy.ask("GET", path, b"", ("Origin", "http://elsewhere"))

    assert answer.header("Access-Control-Allow-Origin") is None


def test_a_preflight_for_our_pages_is_turned_down(strict: InMemoryProxy) -> None:
    """So that no page of another origin can show a key here."""
    answer = strict.ask(
        "OPTIONS",
        "/-/status.json",
        b"",
        ("Origin", "http://elsewhere"),
        ("Access-Control-Request-Method", "GET"),
        ("Access-Control-Request-Headers", "authorization"),
    )

    assert answer.status == 405
    assert answer.header("Access-Control-Allow-Origin") is None


@pytest.mark.parametrize("path", ["/-/status.json", "/-/healthy", "/-/ready"])
def test_what_changes_is_kept_in_no_cache(proxy: InMemoryProxy, path: str) -> None:
    """No cache on the way answers for us."""
    assert proxy.ask("GET", path).header("Cache-Control") == "no-store"


@pytest.mark.parametrize("path", ["/-/", "/-/live.js", "/-/page.css", "/-/docs"])
def test_a_page_is_asked_for_anew(proxy: InMemoryProxy, path: str) -> None:
    """After an update of the proxy no part of the old page is left."""
    assert proxy.ask("GET", path).header("Cache-Control") == "no-cache"


# Status


def test_the_status_tells_of_this_version(proxy: InMemoryProxy) -> None:
    """And of the upstream."""
    status = proxy.ask("GET", "/-/status.json").json

    assert status["version"] == __version__
    assert status["upstream"]["url"] == "http://upstream"


@pytest.mark.parametrize(
    ("query", "serials"),
    [
        ("", [1, 2, 3]),
        ("?since=0", [1, 2, 3]),
        ("?since=2", [3]),
        ("?x=1&since=2", [3]),
        ("?since=2&x=1", [3]),
        ("?since=3", []),
        ("?since=999999999999999999", []),
    ],
)
def test_only_batches_that_were_not_seen_are_told(
    proxy: InMemoryProxy, query: str, serials: list[int]
) -> None:
    """A page that asks every second need not hear everything again."""
    embed(proxy)
    embed(proxy)
    embed(proxy)

    status = proxy.ask("GET", f"/-/status.json{query}").json

    assert [batch["serial"] for batch in status["batches"]] == serials


@pytest.mark.parametrize(
    "since", ["", "-1", "x", "1.5", "+1", "%C2%B2", "1_0", "9" * 19, "9" * 5000]
)
def test_what_is_no_serial_means_all_batches(proxy: InMemoryProxy, since: str) -> None:
    """It is not worth an error, and certainly no bug."""
    embed(proxy)

    answer = proxy.ask("GET", f"/-/status.json?since={since}")

    assert answer.status == 200
    assert len(answer.json["batches"]) == 1


# Figures

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,"
    "*/*;q=0.2"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,"
    "*/*;q=0.2"
)


def scrape(proxy: InMemoryProxy, *accept: str) -> Answer:
    """Return the answer with the figures."""
    return proxy.ask("GET", "/metrics", b"", *(("Accept", each) for each in accept))


@pytest.mark.parametrize("accept", [[], ["*/*"], ["text/plain"], ["text/html"], [""]])
def test_figures_are_text_for_any_other_client(
    proxy: InMemoryProxy, accept: list[str]
) -> None:
    """With a type that every Prometheus and every browser knows."""
    answer = scrape(proxy, *accept)

    assert answer.header("Content-Type") == TEXT
    assert b"# TYPE abproxy_calls_total counter\n" in answer.body


@pytest.mark.parametrize("accept", [PROMETHEUS_2, PROMETHEUS_3])
def test_figures_are_openmetrics_for_a_prometheus(
    proxy: InMemoryProxy, accept: str
) -> None:
    """Which its own parser takes."""
    embed(proxy)

    answer = scrape(proxy, accept)

    assert str(answer.header("Content-Type")).startswith(OPENMETRICS)
    families = text_string_to_metric_families(answer.body.decode())
    calls = {family.name: family for family in families}["abproxy_calls"]
    [sample] = calls.samples
    assert sample.labels == {"route": "/embed", "status": "200"}
    assert sample.value == 1


@pytest.mark.parametrize(
    "accept",
    [
        "application/openmetrics-text; version=x",
        "application/openmetrics-text; version=2.\xe9",
        "application/openmetrics-text; version=9999999999.",
        "application/openmetrics-text; version=0.0.1",
        "text/plain; version=x",
        "text/plain; version=1.\xb2",
        ";;;=,;",
        "\xff",
    ],
)
def test_a_strange_wish_gets_text(proxy: InMemoryProxy, accept: str) -> None:
    """Nothing that a client writes breaks the page, or comes back in a header."""
    answer = scrape(proxy, accept)

    assert answer.status == 200
    assert answer.header("Content-Type") == TEXT


@pytest.mark.skipif(
    shutil.which("promtool") is None and "CI" not in os.environ, reason="no promtool"
)
def test_prometheus_finds_nothing_wrong_with_the_figures(proxy: InMemoryProxy) -> None:
    """Its own linter reads names, units, HELP and TYPE."""
    embed(proxy)
    proxy.ask("GET", "/info")
    promtool = shutil.which("promtool")
    assert promtool is not None, "promtool comes with Debian's package prometheus"

    checked = subprocess.run(  # noqa: S603
        [promtool, "check", "metrics"],
        input=scrape(proxy).body,
        capture_output=True,
        timeout=30,
        check=False,
    )

    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


# A port of their own


@pytest.mark.parametrize("path", [path for path in BELOW if path not in HEALTH])
def test_pages_at_a_port_of_their_own_are_not_at_the_clients(
    apart: InMemoryProxy, upstream: Upstream, path: str
) -> None:
    """There they are not to be found, and not the upstream's either."""
    answer = apart.ask("GET", path)

    assert answer.status == 404
    assert upstream.asked == []


def test_at_the_clients_port_metrics_are_the_upstreams(
    apart: InMemoryProxy, upstream: Upstream
) -> None:
    """As everything that is not ours there."""
    apart.ask("GET", "/metrics")

    assert upstream.asked == [("GET", "/metrics")]


@pytest.mark.parametrize("path", PAGES)
def test_all_pages_are_at_their_own_port(apart: InMemoryProxy, path: str) -> None:
    """Those about health as well."""
    assert apart.private is not None

    answer = apart.private.ask("GET", path)

    assert (answer.status, answer.header("Content-Type")) == (200, PAGES[path])


@pytest.mark.parametrize("path", HEALTH)
def test_health_is_at_both_ports_of_a_proxy(apart: InMemoryProxy, path: str) -> None:
    """A load balancer asks where its clients go."""
    assert apart.private is not None

    both = [port.ask("GET", path) for port in (apart, apart.private)]

    assert [answer.status for answer in both] == [200, 200]


def test_the_page_that_is_not_there_is_not_named_either(apart: InMemoryProxy) -> None:
    """At the clients' port only those are listed that are there."""
    answer = apart.ask("GET", "/-/")

    assert json.loads(answer.body)["error"] == (
        "there is no such page; what there is: /health, /ping, /-/healthy, /-/ready"
    )


def test_at_the_clients_port_there_is_no_redirect_to_the_page(
    apart: InMemoryProxy,
) -> None:
    """No client is sent to where nothing is."""
    assert apart.ask("GET", "/-").status == 404


@pytest.mark.parametrize("path", ["/-/", "/-", "/-/status.json", "/-/nobody/knows"])
def test_a_client_without_a_key_learns_nothing_at_the_clients_port(
    upstream: Upstream, path: str
) -> None:
    """That there is no page wants a key, too."""
    proxy = in_memory_proxy(upstream, operations_port="0", api_keys=("one",))

    answers = [proxy.ask("GET", path), proxy.ask("GET", path, b"", KEY)]

    assert [answer.status for answer in answers] == [401, 404]


def test_calls_of_both_ports_are_counted(apart: InMemoryProxy) -> None:
    """There is one proxy behind them."""
    private: Any = apart.private
    embed(apart)
    embed(private)

    figures = private.ask("GET", "/metrics").body.decode()

    assert 'abproxy_calls_total{route="/embed",status="200"} 2.0\n' in figures
