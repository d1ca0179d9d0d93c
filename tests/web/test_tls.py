"""Where PORT is an endpoint with TLS: which clients are served, and how it ends."""

import socket
import ssl
from pathlib import Path

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.threads import deferToThread
from twisted.logger import capturedLogs
from twisted.web import http

from abproxy.web import server
from bench.breakable import Traits
from support.certificates import make_certificate
from support.client import (
    LOCALHOST,
    ask,
    endpoint,
    read_all,
    shake_hands,
    until,
)
from support.proxy import started_proxy, without

# Twisted's own way to hand a certificate to its library.
pytestmark = pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")

BODY = b'{"inputs":["a","b"]}'
ROWS = b"]]"
CALL = (
    b"POST /embed HTTP/1.1\r\nHost: proxy\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
)
PAGE = b"GET /-/healthy HTTP/1.1\r\nHost: proxy\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file with a key and its certificate."""
    return make_certificate(tmp_path_factory.mktemp("tls"))


def without_date(answer: bytes) -> list[bytes]:
    """Return the parts of the answer, without the only line that time changes."""
    return [line for line in answer.split(b"\r\n") if not line.startswith(b"Date: ")]


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (None, None),
        (["http/1.1"], "http/1.1"),
        (["h2", "http/1.1"], "http/1.1"),
        (["http/1.0"], "http/1.0"),
    ],
)
@ensureDeferred
async def test_a_client_that_speaks_http_1_is_served(
    certificate: Path, offered: list[str] | None, chosen: str | None
) -> None:
    """Whatever else it offers, and if it offers nothing."""
    async with started_proxy(port=endpoint(certificate)) as here:
        client = await deferToThread(shake_hands, here.port, offered)
        agreed = client.selected_alpn_protocol()
        answer = await deferToThread(ask, client, CALL, ROWS)
        client.close()

    assert agreed == chosen
    assert answer.startswith(OK)


@ensureDeferred
async def test_a_client_of_http_2_alone_is_told_so_in_the_handshake(
    certificate: Path,
) -> None:
    """It would not understand a word of the answer."""
    async with started_proxy(port=endpoint(certificate)) as here:
        with pytest.raises(ssl.SSLError, match="ALERT"):
            await deferToThread(shake_hands, here.port, ["h2"])


@ensureDeferred
async def test_http_2_is_never_agreed_on(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a library is installed with which Twisted's own server could."""
    monkeypatch.setattr(http, "H2_ENABLED", True)

    async with started_proxy(port=endpoint(certificate)) as here:
        client = await deferToThread(shake_hands, here.port, ["h2", "http/1.1"])
        agreed = client.selected_alpn_protocol()
        client.close()

    assert agreed == "http/1.1"


@ensureDeferred
async def test_the_pages_may_be_at_a_port_with_tls(certificate: Path) -> None:
    """While the clients' port has none."""
    async with started_proxy(operations_port=endpoint(certificate)) as here:
        operator = await deferToThread(shake_hands, here.operations_port, ["http/1.1"])
        answer = await deferToThread(ask, operator, PAGE, b"}")
        operator.close()

    assert answer.startswith(OK)


@ensureDeferred
async def test_the_log_says_where_one_answers(certificate: Path) -> None:
    """As an operator would type it."""
    with capturedLogs() as log:
        async with started_proxy(operations_port=endpoint(certificate)) as here:
            ports = here.operations_port, here.port

    said = [event.get("address") for event in log if "address" in event]
    operations, clients = ports
    assert said == [f"https://127.0.0.1:{operations}", f"http://127.0.0.1:{clients}"]


@pytest.mark.parametrize("is_fast", [True, False])
@ensureDeferred
async def test_an_answer_is_the_same_with_tls_and_without(
    certificate: Path, *, is_fast: bool
) -> None:
    """To the byte, on either path, with rows that fill many of its records."""
    async with started_proxy(
        Traits(dimensions=10_000),
        port=endpoint(certificate),
        operations_port="0",
        fast_paths=without() if is_fast else without("server"),
    ) as here:
        plain = socket.create_connection((LOCALHOST, here.operations_port))
        client = await deferToThread(shake_hands, here.port, ["http/1.1"])
        answers = [
            await deferToThread(ask, line, CALL, ROWS)
            for line in (plain, client, client)
        ]
        client.close()
        plain.close()

    plain, first, second = map(without_date, answers)
    assert plain[0] == b"HTTP/1.1 200 OK"
    assert first == second == plain


@ensureDeferred
async def test_a_client_that_keeps_a_connection_does_not_hold_up_the_end(
    certificate: Path,
) -> None:
    """A pool looks at a connection only when it wants it again."""
    async with started_proxy(port=endpoint(certificate), drain_timeout_s=600.0) as here:
        client = await deferToThread(shake_hands, here.port, ["http/1.1"])
        await deferToThread(ask, client, PAGE, b"}")

    rest = await deferToThread(read_all, client)
    client.close()
    assert rest == b""


@ensureDeferred
async def test_an_answer_that_is_owed_at_the_end_is_given(certificate: Path) -> None:
    """And the client knows that it has all of it."""
    async with started_proxy(Traits(ms=200), port=endpoint(certificate)) as here:
        client = await deferToThread(shake_hands, here.port, ["http/1.1"])
        client.sendall(CALL)
        await until(lambda: here.upstream.work.inputs)

    answer = await deferToThread(read_all, client)
    client.close()
    assert answer.startswith(OK)
    assert answer.endswith(ROWS)


@ensureDeferred
async def test_a_refused_client_has_the_whole_answer(certificate: Path) -> None:
    """Though it still sends."""
    head = b"POST /embed HTTP/1.1\r\nHost: proxy\r\nContent-Length: 999999\r\n\r\n"

    async with started_proxy(port=endpoint(certificate), max_body_bytes=1000) as here:
        client = await deferToThread(shake_hands, here.port, ["http/1.1"])
        client.sendall(head + b"x" * 100_000)
        answer = await deferToThread(read_all, client)
        client.close()

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert answer.endswith(b"}")


@ensureDeferred
async def test_far_too_many_connections_are_cut_without_a_word(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing in the log."""
    monkeypatch.setattr(server, "MOST_SURPLUS", 0)

    async with started_proxy(port=endpoint(certificate), max_connections=1) as here:
        client = await deferToThread(shake_hands, here.port)
        with pytest.raises(OSError, match=r"reset|EOF|closed"):
            await deferToThread(shake_hands, here.port)
        answer = await deferToThread(ask, client, PAGE, b"}")
        client.close()

    assert answer.startswith(OK)
