"""The PROXY protocol: whose address a balancer tells, and what is no header."""

import shutil
import socket
import ssl
import struct
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_twisted import ensureDeferred
from twisted.internet.address import IPv4Address
from twisted.internet.testing import StringTransportWithDisconnection
from twisted.internet.threads import deferToThread
from twisted.logger import capturedLogs, formatEvent

from abproxy.events import Observer, RequestInfo
from abproxy.http.forwarded import TrustedProxies
from abproxy.web.proxy_header import HeaderListener, read_header
from support.certificates import issue
from support.client import ask, until
from support.proxy import InMemoryProxy, StartedProxy, in_memory_proxy, started_proxy
from support.upstream import OpenUpstream

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
BALANCER = IPv4Address("TCP", "10.0.0.1", 1)
CALL = (
    b"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    b'Content-Length: 14\r\n\r\n{"inputs":"a"}'
)


def version_2(
    command: int, family: int, *parts: bytes, tlvs: bytes = b"", length: int = -1
) -> bytes:
    """Write a header of version 2."""
    body = b"".join(parts) + tlvs
    size = len(body) if length < 0 else length
    return SIGNATURE + struct.pack("!BBH", command, family, size) + body


def tcp(source: str, **more: Any) -> bytes:
    """Write a header of version 2 for a connection over TCP."""
    address = ip_address(source)
    family = 0x11 if address.version == 4 else 0x21
    packed = address.packed
    return version_2(0x21, family, packed, packed, b"\0\1\0\2", **more)


LINE = b"PROXY TCP4 192.0.2.7 10.0.0.1 56324 443\r\n"
HEADERS = {
    LINE: "192.0.2.7",
    b"PROXY TCP6 2001:DB8::0007 ::1 56324 443\r\n": "2001:db8::7",
    b"PROXY TCP6 ::ffff:192.0.2.7 ::1 56324 443\r\n": "192.0.2.7",
    b"PROXY UNKNOWN\r\n": None,
    b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n": None,
    tcp("192.0.2.7"): "192.0.2.7",
    tcp("192.0.2.7", tlvs=b"\x02\0\4host"): "192.0.2.7",
    tcp("2001:db8::7"): "2001:db8::7",
    tcp("::ffff:192.0.2.7"): "192.0.2.7",
    version_2(0x20, 0x00): None,
    version_2(0x20, 0x11, bytes(12)): None,
    version_2(0x20, 0x99, b"whatever"): None,
    version_2(0x21, 0x00): None,
    version_2(0x21, 0x00, tlvs=b"\x04\0\3abc"): None,
    version_2(0x21, 0x31, b"/run/a".ljust(108, b"\0"), bytes(108)): "",
}

BAD = [
    CALL,
    b"\x16\x03\x01\x02\0\x01",
    b"PROXY\r\n",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 56324\r\n",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 x 443\r\n",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 056 443\r\n",
    b"PROXY TCP4 192.0.2.7  10.0.0.1 1 443\r\n",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 1 443 \r\n",
    b"PROXY TCP4 192.0.02.7 10.0.0.1 1 443\r\n",
    b"PROXY TCP4 garbage garbage 1 443\r\n",
    b"PROXY TCP4 ::1 ::1 1 443\r\n",
    b"PROXY TCP6 192.0.2.7 10.0.0.1 1 443\r\n",
    b"PROXY TCP4 \xff.0.2.7 10.0.0.1 1 443\r\n",
    b"PROXY UDP4 192.0.2.7 10.0.0.1 1 443\r\n",
    b"proxy TCP4 192.0.2.7 10.0.0.1 1 443\r\n",
    b"PROXY UNKNOWN " + b"x" * 93 + b"\r\n",
    b"PROXY TCP4 " + b"1" * 100,
    b"PROXY TCP4 192.0.2.7 10.0.0.1 1 443\n" + b"\n" * 80,
    version_2(0x11, 0x11, bytes(12)),
    version_2(0x22, 0x11, bytes(12)),
    version_2(0x21, 0x11, bytes(11)),
    version_2(0x21, 0x21, bytes(35)),
    version_2(0x21, 0x31, bytes(215)),
    version_2(0x21, 0x12, bytes(12)),
    version_2(0x21, 0x41, bytes(12)),
    version_2(0x21, 0x11, length=65535),
    version_2(0x20, 0x00, length=4096),
]


@pytest.mark.parametrize(("header", "address"), HEADERS.items())
def test_headers_of_both_versions_are_read(header: bytes, address: str | None) -> None:
    """And what follows them is not part of them."""
    assert read_header(header) == (address, len(header))
    assert read_header(header + CALL) == (address, len(header))


@pytest.mark.parametrize("header", HEADERS)
def test_a_header_may_come_in_pieces(header: bytes) -> None:
    """Each part of it is the beginning of one, and no whole one."""
    parts = [header[:at] for at in range(len(header))]

    assert [read_header(part) for part in parts] == [None] * len(parts)


@pytest.mark.parametrize("data", BAD)
def test_anything_else_is_no_header(data: bytes) -> None:
    """Nothing of it is guessed."""
    with pytest.raises(ValueError):  # noqa: PT011  each has its own words
        read_header(data)


@given(
    st.sampled_from(
        [b"", b"PROXY ", b"PROXY TCP4 ", b"PROXY UNKNOWN", SIGNATURE]
    ).flatmap(lambda begin: st.binary(max_size=200).map(lambda end: begin + end))
)
def test_no_bytes_are_another_error(data: bytes) -> None:
    """They are a header, the beginning of one, or no header."""
    try:
        found = read_header(data)
    except ValueError:
        return
    assert found is None or 0 < found[1] <= len(data)


@given(st.binary(max_size=5000), st.sampled_from([SIGNATURE + b"\x21\x11", b"PROXY "]))
def test_a_header_is_bounded(data: bytes, begin: bytes) -> None:
    """More than 4096 bytes are never waited for."""
    try:
        found = read_header((begin + data).ljust(4096, b"x"))
    except ValueError:
        return
    assert found is not None


# Connections


class Noting(Observer):
    """Notes where requests come from."""

    def __init__(self) -> None:
        self.hosts: list[str] = []

    def request_began(self, request: RequestInfo) -> None:
        """Note it."""
        self.hosts.append(request.client_host)


class _Port:
    """A port that hands out connections."""

    def listen(self, factory: Any) -> Any:
        """Give the factory itself."""
        return factory


class _Connection(StringTransportWithDisconnection):
    """Remembers whether it was cut."""

    is_cut = False

    def abortConnection(self) -> None:  # noqa: N802
        """Cut it, and say so a moment later, as a socket does."""
        self.is_cut = True


def _connect(
    proxy: InMemoryProxy, *trusted: str, peer: Any = BALANCER
) -> tuple[_Connection, Any]:
    proxies = TrustedProxies.of(trusted)
    port: Any = HeaderListener(_Port(), lambda: proxies)  # type: ignore[arg-type]
    protocol = port.listen(proxy.site).buildProtocol(peer)
    transport = _Connection(peerAddress=peer)
    transport.protocol = protocol
    protocol.makeConnection(transport)
    return transport, protocol


def _statuses(proxy: InMemoryProxy, transport: _Connection) -> list[bytes]:
    proxy.flush()
    return [answer[1:4] for answer in transport.value().split(b"HTTP/1.1")[1:]]


@pytest.mark.parametrize("is_fast", [True, False])
@pytest.mark.parametrize("step", [1, 7, 1000])
@pytest.mark.parametrize(("header", "address"), HEADERS.items())
def test_a_connection_is_that_of_the_client(
    header: bytes, address: str | None, step: int, *, is_fast: bool
) -> None:
    """However its bytes arrive, and with all that follows."""
    proxy = in_memory_proxy(OpenUpstream(), is_fast=is_fast)
    noting = proxy.site.observer = Noting()
    transport, protocol = _connect(proxy)
    data = header + CALL + CALL

    for at in range(0, len(data), step):
        protocol.dataReceived(data[at : at + step])
        proxy.flush()

    assert _statuses(proxy, transport) == [b"200", b"200"]
    assert noting.hosts == ["10.0.0.1" if address is None else address] * 2
    transport.loseConnection()


@pytest.mark.parametrize("data", BAD)
@pytest.mark.parametrize("step", [1, 1000])
def test_without_a_header_a_connection_is_cut_and_not_heard(
    data: bytes, step: int
) -> None:
    """Nothing is answered, and a right header after it is none any more."""
    upstream = OpenUpstream()
    proxy = in_memory_proxy(upstream)
    transport, protocol = _connect(proxy)

    for at in range(0, len(data), step):
        protocol.dataReceived(data[at : at + step])
    protocol.dataReceived(LINE + CALL)
    proxy.flush()

    assert transport.is_cut
    assert transport.value() == b""
    assert upstream.shown == []
    transport.loseConnection()
    assert not proxy.site.channels


def test_a_header_that_does_not_come_is_not_waited_for() -> None:
    """The connection counts from its beginning, and is closed after a while."""
    proxy = in_memory_proxy(OpenUpstream())
    transport, protocol = _connect(proxy)
    protocol.dataReceived(b"PROXY TCP4 ")
    assert len(proxy.site.channels) == 1

    proxy.clock.pump([1] * 80)

    assert not transport.connected
    assert not proxy.site.channels


def test_too_many_connections_are_closed_without_a_header() -> None:
    """There is a limit, and some more that are told so."""
    proxy = in_memory_proxy(OpenUpstream(), max_connections=1)
    factory: Any = HeaderListener(_Port(), TrustedProxies).listen(proxy.site)  # type: ignore[arg-type]
    proxy.site.channels.update(range(51))  # type: ignore[arg-type]

    assert factory.buildProtocol(BALANCER) is None


@pytest.mark.parametrize("header", [tcp("192.0.2.7"), LINE])
def test_only_trusted_proxies_tell_an_address(header: bytes) -> None:
    """Another's connection is cut; the log says so, but not each time."""
    upstream = OpenUpstream()
    proxy = in_memory_proxy(upstream)
    factory: Any = HeaderListener(  # type: ignore[arg-type]
        _Port(), lambda: TrustedProxies.of(["192.0.2.0/24"])
    ).listen(proxy.site)

    with capturedLogs() as events:
        for _ in range(3):
            protocol = factory.buildProtocol(BALANCER)
            transport = _Connection(peerAddress=BALANCER)
            transport.protocol = protocol
            protocol.makeConnection(transport)
            protocol.dataReceived(header + CALL)
            proxy.flush()
            assert transport.is_cut
            assert transport.value() == b""
            transport.loseConnection()

    assert upstream.shown == []
    [line] = map(formatEvent, events)
    assert line == (
        "10.0.0.1 has sent a PROXY header and is not in TRUSTED_PROXIES: such "
        "connections are closed"
    )


@pytest.mark.parametrize("header", [b"PROXY UNKNOWN\r\n", version_2(0x20, 0)])
def test_others_may_speak_for_themselves(header: bytes) -> None:
    """As a health check on the same machine does."""
    proxy = in_memory_proxy(OpenUpstream())
    transport, protocol = _connect(proxy, "192.0.2.0/24")

    protocol.dataReceived(header + CALL)

    assert _statuses(proxy, transport) == [b"200"]
    transport.loseConnection()


# Over real sockets

TCP = "haproxy:tcp:0:interface=127.0.0.1"


@asynccontextmanager
async def _logged(tmp_path: Path, **settings: Any) -> AsyncIterator[StartedProxy]:
    file = str(tmp_path / "access.log")
    async with started_proxy(port=TCP, access_log=file, **settings) as here:
        yield here


def _hosts(tmp_path: Path) -> list[str]:
    lines = (tmp_path / "access.log").read_text().splitlines()
    return [line.split()[0] for line in lines]


@pytest.mark.parametrize("header", [LINE, tcp("192.0.2.7")])
@ensureDeferred
async def test_a_balancer_tells_of_its_clients(tmp_path: Path, header: bytes) -> None:
    """On a real socket, in pieces."""
    async with _logged(tmp_path) as here:
        client = await here.byte_client()
        for byte in header:
            client.send(bytes([byte]))
        client.send(CALL)
        await client.until(b"]]")
        await until(lambda: _hosts(tmp_path) == ["192.0.2.7"])


@ensureDeferred
async def test_garbage_is_cut_on_a_real_socket(tmp_path: Path) -> None:
    """And nothing is logged, however often it comes."""
    async with _logged(tmp_path) as here:
        with capturedLogs() as events:
            for _ in range(5):
                client = await here.byte_client()
                client.send(CALL)
                await client.lost
        assert not client.received
        assert [formatEvent(event) for event in events] == []


@ensureDeferred
async def test_the_header_comes_before_tls(tmp_path: Path) -> None:
    """As balancers send it that pass on TLS as it is."""
    files = issue(tmp_path)
    async with _logged(tmp_path, **files.settings) as here:

        def ask_over_tls() -> bytes:
            context = ssl.create_default_context(cafile=str(files.authority))
            with socket.create_connection(("127.0.0.1", here.port)) as plain:
                plain.sendall(LINE)
                with context.wrap_socket(plain, server_hostname="localhost") as client:
                    return ask(client, CALL, b"]]")

        answer = await deferToThread(ask_over_tls)

        assert answer.startswith(b"HTTP/1.1 200")
        await until(lambda: _hosts(tmp_path) == ["192.0.2.7"])


HAPROXY = """
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    option http-server-close
listen in
    bind 127.0.0.1:{port}
    source 127.0.0.1
    server abproxy 127.0.0.1:{abproxy} {how}
"""


@contextmanager
def _haproxy(tmp_path: Path, abproxy: int, how: str) -> Iterator[int]:
    """Run the real one in front of abproxy."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    file = tmp_path / "haproxy.cfg"
    file.write_text(HAPROXY.format(port=port, abproxy=abproxy, how=how))
    process = subprocess.Popen(["haproxy", "-db", "-f", str(file)])  # noqa: S603, S607
    try:
        yield port
    finally:
        process.terminate()
        process.wait()


@pytest.mark.skipif(shutil.which("haproxy") is None, reason="haproxy is not installed")
@pytest.mark.parametrize("how", ["send-proxy", "send-proxy-v2", "send-proxy-v2 check"])
@ensureDeferred
async def test_haproxy_tells_of_its_clients(tmp_path: Path, how: str) -> None:
    """The real one; its health checks speak for themselves."""
    async with _logged(tmp_path, trusted_proxies=("127.0.0.0/8",)) as here:
        with _haproxy(tmp_path, here.port, how) as port:

            def ask_from(address: str) -> bytes:
                while True:
                    try:
                        client = socket.create_connection(
                            ("127.0.0.1", port), source_address=(address, 0)
                        )
                    except ConnectionRefusedError:
                        time.sleep(0.02)
                        continue
                    with client:
                        return ask(client, CALL, b"]]")

            for address in ("127.0.0.7", "127.0.0.8"):
                answer = await deferToThread(ask_from, address)
                assert answer.startswith(b"HTTP/1.1 200")
        await until(lambda: _hosts(tmp_path) == ["127.0.0.7", "127.0.0.8"])
