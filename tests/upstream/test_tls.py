"""Servers with TLS that are not trusted, or not agreed with, over real sockets."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_twisted
from cryptography.x509 import DNSName
from twisted.internet import reactor
from twisted.internet.defer import maybeDeferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import PrivateCertificate
from twisted.web.server import Site

from abproxy.errors import CannotConnect, ConnectionBroken, HandshakeFailed
from abproxy.http.messages import UpstreamRequest
from abproxy.upstream.agent import make_agent
from abproxy.upstream.connections import make_pool
from abproxy.upstream.endpoints import EndpointFactory, uri_of
from abproxy.upstream.fast.client import FastClient
from abproxy.upstream.fast.connection import ConnectionPool
from abproxy.upstream.tls import VerifyingPolicy
from abproxy.upstream.treq_client import TreqClient, make_treq
from support.certificates import LOCAL, OTHER, certificate
from support.client import turn
from support.upstream import OpenUpstream, make_upstream

pytestmark = pytest.mark.filterwarnings("ignore:Passing pyOpenSSL")
"""Twisted does so, for the server here."""

CLIENTS = "fast", "treq"


class Answering(Protocol):
    """Answers whatever comes with the same bytes, and closes."""

    answer = b""

    def dataReceived(self, data: bytes) -> None:
        del data
        self.transport.write(self.answer)
        self.transport.loseConnection()


def answering(data: bytes) -> Factory:
    """Make a server that answers with *data*."""
    return Factory.forProtocol(type("Made", (Answering,), {"answer": data}))


async def ask(
    url: str,
    client: str,
    policy: VerifyingPolicy | None = None,
    address: str | None = None,
) -> Any:
    """Send one request to *url*; return the response, or the error."""
    pool, idle = make_pool(reactor, max_connections=1), ConnectionPool(reactor, 1)
    about: dict[str, Any] = {"base_url": url, "max_answer_bytes": 1000}
    chosen = policy or VerifyingPolicy()
    endpoints = EndpointFactory(reactor, 5, lambda: chosen, address)
    sender: Any
    if client == "treq":
        sender = TreqClient(http=make_treq(make_agent(pool, endpoints)), **about)
    else:
        endpoint = endpoints.endpointForURI(uri_of(url.encode()))
        sender = FastClient(endpoint=endpoint, pool=idle, **about)
    upstream = make_upstream(sender.send, reactor, pool=idle, agent_pool=pool)
    request = UpstreamRequest(path=b"/embed", headers=(), body=b"{}")
    try:
        return await upstream.send(request)
    except Exception as error:  # noqa: BLE001  the test looks at it
        return error
    finally:
        await (pool.closeCachedConnections() or turn())
        await idle.close()


@asynccontextmanager
async def listening(port: Any) -> AsyncIterator[int]:
    """Tell the number of a *port*, and close it in the end."""
    yield port.getHost().port
    await maybeDeferred(port.stopListening)


def listen_tls(pem: bytes, asked: OpenUpstream | None = None) -> Any:
    """Listen with TLS."""
    options = PrivateCertificate.loadPEM(pem).options()
    listen: Any = reactor.listenSSL  # type: ignore[attr-defined]
    site = Site(asked or OpenUpstream())
    site.timeOut = None
    return listen(0, site, options, interface="127.0.0.1")


def listen_plain(factory: Any) -> Any:
    """Listen without TLS."""
    listen: Any = reactor.listenTCP  # type: ignore[attr-defined]
    return listen(0, factory, interface="127.0.0.1")


@pytest.mark.parametrize(
    ("name", "days_left", "is_known", "said"),
    [
        (LOCAL, -1, True, "it has expired"),
        (LOCAL, 9, False, "self-signed, and not known"),
        (LOCAL, 9, False, "SSL_CERT_FILE"),
        (OTHER, 9, True, "for another name"),
    ],
)
@pytest.mark.parametrize("client", CLIENTS)
@pytest_twisted.ensureDeferred
async def test_a_certificate_that_is_not_accepted_is_said_with_the_reason(
    monkeypatch: Any,
    tmp_path: Any,
    client: str,
    name: Any,
    days_left: int,
    *,
    is_known: bool,
    said: str,
) -> None:
    """No wait would make it better: this is not a server that is away."""
    pem, known = certificate(name, days_left)
    file = tmp_path / "known.pem"
    file.write_bytes(known if is_known else certificate(OTHER, 9)[1])
    monkeypatch.setenv("SSL_CERT_FILE", str(file))

    async with listening(listen_tls(pem)) as port:
        error = await ask(f"https://127.0.0.1:{port}", client)

    assert isinstance(error, HandshakeFailed)
    assert (error.status, error.reason) == (502, CannotConnect.reason)
    assert said in str(error)


@pytest.mark.parametrize("client", CLIENTS)
@pytest_twisted.ensureDeferred
async def test_a_certificate_that_is_named_is_accepted(
    monkeypatch: Any, tmp_path: Any, client: str
) -> None:
    """With the right name, and as long as it is valid."""
    pem, known = certificate(LOCAL, 9)
    file = tmp_path / "known.pem"
    file.write_bytes(known)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))

    async with listening(listen_tls(pem)) as port:
        response = await ask(f"https://127.0.0.1:{port}", client)

    assert response.status == 200


@pytest.mark.parametrize("client", CLIENTS)
@pytest_twisted.ensureDeferred
async def test_a_server_without_tls_is_told_from_one_that_is_away(client: str) -> None:
    """The URL is wrong, and the message says how."""
    plain = answering(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    async with listening(listen_plain(plain)) as port:
        error = await ask(f"https://127.0.0.1:{port}", client)

    assert isinstance(error, HandshakeFailed)
    assert "should begin with http://" in str(error)


@pytest.mark.parametrize("client", CLIENTS)
@pytest_twisted.ensureDeferred
async def test_a_server_with_tls_is_told_from_one_that_is_broken(client: str) -> None:
    """Its alert is no HTTP."""
    alert = answering(b"\x15\x03\x01\x00\x02\x02\x46")

    async with listening(listen_plain(alert)) as port:
        error = await ask(f"http://127.0.0.1:{port}", client)

    assert isinstance(error, HandshakeFailed)
    assert "should begin with https://" in str(error)


@pytest.mark.parametrize("client", CLIENTS)
@pytest_twisted.ensureDeferred
async def test_a_handshake_that_breaks_off_is_no_connection(client: str) -> None:
    """Nothing was sent yet; the server may be about to restart."""
    async with listening(listen_plain(answering(b""))) as port:
        error = await ask(f"https://127.0.0.1:{port}", client)

    assert isinstance(error, CannotConnect)
    assert not isinstance(error, ConnectionBroken)


@pytest.mark.parametrize("client", CLIENTS)
@pytest_twisted.ensureDeferred
async def test_a_server_at_an_address_is_asked_by_its_name(
    monkeypatch: Any, tmp_path: Any, client: str
) -> None:
    """So its certificate fits, and who is in front of it knows whom we mean."""
    pem, known = certificate(DNSName("tei.invalid"), 9)
    (tmp_path / "known.pem").write_bytes(known)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "known.pem"))
    asked = OpenUpstream()

    async with listening(listen_tls(pem, asked)) as port:
        url = f"https://tei.invalid:{port}"
        response = await ask(url, client, address="127.0.0.1")

    assert response.status == 200
    assert asked.hosts == [f"tei.invalid:{port}"]
