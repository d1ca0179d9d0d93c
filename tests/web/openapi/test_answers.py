"""What is answered is as described, also when something goes wrong."""

from pathlib import Path
from typing import Any

import pytest
from openapi_schema_validator import OAS31Validator
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.web.resource import Resource
from twisted.web.server import Request

from support.client import Client
from support.models import several_models, tables
from support.proxy import InMemoryProxy, in_memory_proxy, wired
from support.upstream import HeldUpstream, OpenUpstream
from web.openapi.described import DESCRIPTION, assert_described, operations

JSON = ("Content-Type", "application/json")
ROUTES = {"/embed": b'{"inputs":"a"}', "/v1/embeddings": b'{"input":"a"}'}
"""A route of each dialect, with a body."""


class Full(Resource):
    """Takes no work."""

    isLeaf = True

    def __init__(self, status: int) -> None:
        super().__init__()
        self.status = status

    def render(self, request: Request) -> bytes:
        request.setResponseCode(self.status)
        request.setHeader("Content-Type", "application/json")
        return b'{"error":"a","error_type":"b","message":"a","code":1,"type":"b"}'


def make_unreachable(proxy: InMemoryProxy) -> None:
    """Make every connection to the upstream fail."""

    def refuse(*_: object, **__: object) -> None:
        raise Refused

    proxy.upstream.request = refuse


def assert_answered(client: Client, path: str, status: int) -> None:
    """Hold the one answer of a client against the description."""
    [answer] = client.answers()
    assert answer.status == status
    assert_described("POST", path, answer)


# Pages


PAGES = [path for path in DESCRIPTION["paths"] if "-/" in path]
OF_OPERATORS = [each for each in operations() if "/-/upstreams" in each[1]]


@pytest.mark.parametrize("path", [each for each in PAGES if "upstreams" not in each])
def test_a_page_is_as_described(path: str) -> None:
    """Without a key where none is wanted."""
    proxy = in_memory_proxy(OpenUpstream())

    answer = proxy.ask("GET", path)

    assert answer.status == 200
    assert_described("GET", path, answer)


@pytest.mark.parametrize("path", ["/-/", "/-/status.json"])
def test_a_page_that_wants_a_key_is_as_described(path: str) -> None:
    """A form, or nothing at all."""
    proxy = in_memory_proxy(OpenUpstream(), api_keys=("one",))

    answer = proxy.ask("GET", path)

    assert answer.status == 401
    assert_described("GET", path, answer)


@pytest.mark.parametrize(("method", "path", "told"), OF_OPERATORS)
def test_what_operators_do_is_as_described(method: str, path: str, told: Any) -> None:
    """With a key, without it, and where there is none."""
    shown = ("Authorization", "Bearer two")
    for keys, lines, status in [
        (("two",), [shown], 200),
        (("two",), [], 401),
        ((), [shown], 404),
    ]:
        with wired(upstream_url="http://a,http://b", admin_keys=keys) as proxy:
            answer = proxy.ask(method, path.replace("{address}", "a"), b"", *lines)

        assert answer.status == status
        assert str(status) in told["responses"]
        assert_described(method, path, answer, address="a")


@pytest.mark.parametrize("path", ["/health", "/ping", "/-/ready"])
def test_bad_health_is_as_described(path: str) -> None:
    """In words of ours."""
    proxy = in_memory_proxy(OpenUpstream())
    make_unreachable(proxy)

    answer = proxy.ask("GET", path)

    assert answer.status == 503
    assert_described("GET", path, answer)


@pytest.mark.parametrize("status", [200, 204, 302, 429, 500])
def test_whatever_the_upstream_says_of_its_health_is_as_described(status: int) -> None:
    """It may say what it likes."""
    proxy = in_memory_proxy(Full(status))

    answer = proxy.ask("GET", "/health")

    assert answer.status == status
    assert_described("GET", "/health", answer)


@pytest.mark.parametrize(
    "accept", ["*/*", "application/openmetrics-text;version=1.0.0"]
)
def test_figures_are_as_described(accept: str) -> None:
    """In both formats."""
    proxy = in_memory_proxy(OpenUpstream())

    answer = proxy.ask("GET", "/metrics", b"", ("Accept", accept))

    assert_described("GET", "/metrics", answer)


def _closed(schema: Any) -> Any:
    """Allow no member that *schema* does not name."""
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: _closed(each) for name, each in schema.items()}
    return {"additionalProperties": False, **closed} if "required" in schema else closed


def test_the_status_has_nothing_that_is_not_described() -> None:
    """With batches, errors and calls that wait in it."""
    upstream = HeldUpstream()
    proxy = in_memory_proxy(upstream, slots=1, upstream_timeout_s=1)
    clients = [proxy.connect() for _ in range(3)]
    clients[0].embed(b'{"inputs":"answered"}')
    proxy.flush()
    upstream.answer(0, b"[[1]]")
    proxy.flush()
    clients[1].embed(b'{"inputs":"too late"}')
    proxy.clock.advance(1)
    clients[1].embed(b'{"inputs":"in flight"}')
    clients[2].embed(b'{"inputs":"waits","normalize":false}')

    status = proxy.ask("GET", "/-/status.json").json

    assert [len(status[name]) for name in ("batches", "errors", "lanes")] == [2, 1, 1]
    _check_status(status)
    for client in clients:
        client.leave()


# Errors


@pytest.mark.parametrize("path", ROUTES)
def test_a_call_without_a_key_is_refused_as_described(path: str) -> None:
    """Where there are keys."""
    proxy = in_memory_proxy(OpenUpstream(), api_keys=("one",))
    client = proxy.connect()

    client.embed(ROUTES[path], path=path)

    assert_answered(client, path, 401)


@pytest.mark.parametrize("path", ROUTES)
def test_a_large_body_is_refused_as_described(path: str) -> None:
    """Before it is whole."""
    proxy = in_memory_proxy(OpenUpstream(), max_body_bytes=5)
    client = proxy.connect()

    client.embed(ROUTES[path], path=path)

    assert_answered(client, path, 413)


@pytest.mark.parametrize("path", ROUTES)
def test_a_slow_call_is_refused_as_described(path: str) -> None:
    """One that does not arrive."""
    proxy = in_memory_proxy(OpenUpstream())
    client = proxy.connect()

    client.send(b"POST %b HTTP/1.1\r\nContent-Length: 9\r\n\r\n" % path.encode())
    proxy.clock.pump([1] * 61)

    assert_answered(client, path, 408)


@pytest.mark.parametrize("path", ROUTES)
def test_a_long_head_is_refused_as_described(path: str) -> None:
    """Once it is known where it wants to go."""
    proxy = in_memory_proxy(OpenUpstream())
    client = proxy.connect()

    client.send(b"POST %b HTTP/1.1\r\nCookie: " % path.encode() + b"x" * 70_000)

    assert_answered(client, path, 431)


@pytest.mark.parametrize("path", ROUTES)
def test_a_call_too_many_is_refused_as_described(path: str) -> None:
    """With a time to come back."""
    proxy = in_memory_proxy(HeldUpstream(), slots=1, max_waiting_inputs=1)
    clients = [proxy.connect() for _ in range(3)]

    for client in clients:
        client.embed(ROUTES[path], path=path)

    assert_answered(clients[2], path, 429)
    clients[0].leave()
    clients[1].leave()


@pytest.mark.parametrize("path", ROUTES)
def test_a_bug_is_answered_as_described(
    path: str, nothing_leaked: list[object]
) -> None:
    """It is not told what it was."""
    proxy = in_memory_proxy(OpenUpstream(), rate_limit=9)
    proxy.app.rate_limiter = None
    client = proxy.connect()

    client.embed(ROUTES[path], path=path)

    assert_answered(client, path, 500)
    nothing_leaked.clear()


@pytest.mark.parametrize("path", ROUTES)
def test_an_upstream_that_is_away_is_answered_as_described(path: str) -> None:
    """When patience is at an end."""
    proxy = in_memory_proxy(OpenUpstream())
    make_unreachable(proxy)
    client = proxy.connect()

    client.embed(ROUTES[path], path=path)
    proxy.be_patient(client)

    assert_answered(client, path, 502)


@pytest.mark.parametrize("path", ROUTES)
def test_an_upstream_that_is_slow_is_answered_as_described(path: str) -> None:
    """When its time is over."""
    proxy = in_memory_proxy(HeldUpstream(), upstream_timeout_s=1)
    client = proxy.connect()

    client.embed(ROUTES[path], path=path)
    proxy.clock.advance(1)

    assert_answered(client, path, 504)


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("status", [429, 503])
def test_an_upstream_that_is_full_is_passed_on_as_described(
    status: int, path: str
) -> None:
    """In its own words."""
    proxy = in_memory_proxy(Full(status))
    client = proxy.connect()

    client.embed(ROUTES[path], path=path)
    proxy.be_patient(client)

    assert_answered(client, path, status)


def _check_status(status: Any) -> None:
    [told] = [each for _, path, each in operations() if path == "/-/status.json"]
    schema = told["responses"]["200"]["content"]["application/json"]["schema"]
    OAS31Validator(_closed(schema)).validate(status)


def test_the_status_of_several_models_has_nothing_else(tmp_path: Path) -> None:
    """But the model, and the list of all."""
    with several_models(tmp_path, tables(a="", b="")) as here:
        _check_status(here.ask("GET", "/-/status.json?model=b").json)
