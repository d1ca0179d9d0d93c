"""Hosts with names that are not registered anywhere, and addresses with a zone."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_twisted
from attrs import frozen
from cryptography.x509 import DNSName
from twisted.internet import reactor
from twisted.internet._resolver import HostResolution
from twisted.internet.address import IPv4Address
from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import IHostnameResolver
from twisted.internet.protocol import Factory
from twisted.internet.ssl import PrivateCertificate
from twisted.internet.testing import MemoryReactorClock
from twisted.web.server import Site
from zope.interface import implementer

from abproxy.http.messages import UpstreamRequest
from abproxy.upstream.agent import make_agent
from abproxy.upstream.connections import make_pool
from abproxy.upstream.endpoints import EndpointFactory, make_endpoint, uri_of
from abproxy.upstream.treq_client import TreqClient, make_treq
from bench.breakable import Traits
from support.certificates import certificate
from support.client import the_reactor, turn
from support.proxy import in_front_of, paths_of
from support.upstream import OpenUpstream, breakable

NAMES = ["text_embeddings", "_a", "a-", "-a", "a__b.c_d", "xn--hst-sna.example"]


@implementer(IHostnameResolver)
@frozen
class Resolver:
    """Finds every name on this machine."""

    def resolveHostName(  # noqa: N802
        self,
        receiver: Any,
        hostName: str,  # noqa: N803
        portNumber: int = 0,  # noqa: N803
        *_: Any,
        **_more: Any,
    ) -> HostResolution:
        """Find it."""
        resolution = HostResolution(hostName)
        receiver.resolutionBegan(resolution)
        receiver.addressResolved(IPv4Address("TCP", "127.0.0.1", portNumber))
        receiver.resolutionComplete()
        return resolution


@pytest.fixture(autouse=True)
def _found() -> Iterator[None]:
    former = the_reactor().installNameResolver(Resolver())
    yield
    the_reactor().installNameResolver(former)


@pytest.mark.parametrize("client", ["fast", "treq"])
@pytest.mark.parametrize("name", NAMES)
@pytest_twisted.ensureDeferred
async def test_a_server_of_any_name_gets_batches_and_all_other_requests(
    name: str, client: str
) -> None:
    """A name in a container network need not be one that can be registered."""
    async with breakable(Traits()) as upstream:
        url = upstream.url.replace("127.0.0.1", name)
        settings = {"upstream_url": url, "fast_paths": paths_of(client)}
        async with in_front_of(upstream, settings) as proxy:
            caller = await proxy.caller()

            answer = await caller.embed("a")
            relayed = await caller.get("/info")
            health = await caller.get("/health")

    assert answer.is_for(["a"])
    assert (relayed.status, health.status) == (200, 200)


@asynccontextmanager
async def secured(name: str, monkeypatch: Any, folder: Any) -> AsyncIterator[int]:
    """Listen with a certificate for *name*, which is trusted."""
    pem, known = certificate(DNSName(name), 9)
    (folder / "known.pem").write_bytes(known)
    monkeypatch.setenv("SSL_CERT_FILE", str(folder / "known.pem"))
    options = PrivateCertificate.loadPEM(pem).options()
    listen: Any = the_reactor().listenSSL
    port = listen(0, Site(OpenUpstream()), options, interface="127.0.0.1")
    yield port.getHost().port
    await maybeDeferred(port.stopListening)


@pytest.mark.filterwarnings("ignore:Passing pyOpenSSL")
@pytest.mark.parametrize(("name", "accepted"), [("a_b", True), ("a_c", False)])
@pytest_twisted.ensureDeferred
async def test_under_tls_such_a_name_is_checked_as_any_other(
    monkeypatch: Any, tmp_path: Any, name: str, *, accepted: bool
) -> None:
    """The certificate has to be for it."""
    request = UpstreamRequest(path=b"/embed", headers=(), body=b"{}")
    pool = make_pool(reactor, max_connections=1)
    client = make_treq(make_agent(pool, EndpointFactory(reactor, 5)))
    async with secured("a_b", monkeypatch, tmp_path) as port:
        url = f"https://{name}:{port}"
        sender = TreqClient(http=client, base_url=url, max_answer_bytes=1000)
        try:
            status = (await sender.send(request)).status
        except Exception:  # noqa: BLE001  one refusal is as good as another
            status = None
        await (pool.closeCachedConnections() or turn())

    assert (status == 200) is accepted


def test_an_address_keeps_its_zone_on_the_way_to_it() -> None:
    """It says by which interface a link-local address is reached."""
    network: Any = MemoryReactorClock()
    uri = uri_of(b"http://[fe80::1%25eth0]:8080")

    make_endpoint(network, uri, 5).connect(Factory())

    [(host, port, *_)] = network.tcpClients
    assert (host, port) == ("fe80::1%eth0", 8080)


@pytest.mark.parametrize("address", ["10.1.2.3", "fd00::1", "fe80::1%3"])
def test_a_server_at_an_address_is_not_looked_up(address: str) -> None:
    """Its name may have several."""
    network: Any = MemoryReactorClock()
    factory = EndpointFactory(network, 5, address=address)

    factory.endpointForURI(uri_of(b"http://tei:8080")).connect(Factory())

    [(host, port, *_)] = network.tcpClients
    assert (host, port) == (address, 8080)
