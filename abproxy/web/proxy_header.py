"""
The PROXY protocol, by which a balancer tells the address of each connection.

It is a header before everything else on a connection, TLS included:
https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt.  A connection on which
anything else comes, or too much of it, is cut, and not listened to any more.
"""

import re
from collections.abc import Callable
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from typing import Any, ClassVar

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocolNegotiationFactory,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Protocol as ConnectionProtocol
from twisted.internet.protocol import ServerFactory
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from abproxy.http.forwarded import TrustedProxies, plain_address
from abproxy.web.channel import GONE
from abproxy.web.listen import Listener

__all__ = [
    "FOR_ITSELF",
    "HeaderListener",
    "SpeakingForItself",
    "read_header",
]

MOST_BYTES = 4096
"""The longest header of version 2; the specification expects 536 to be enough."""

MOST_BYTES_OF_1 = 107
"""The longest line of version 1, by the specification."""

_BEGINS_1 = b"PROXY "
_BEGINS_2 = b"\r\n\r\n\0\r\nQUIT\n"

FOR_ITSELF = b"PROXY UNKNOWN\r\n"
"""The header of what speaks for no client."""

_PORTS = r" (?:0|[1-9][0-9]{0,4}) (?:0|[1-9][0-9]{0,4})"
_LINE = re.compile(
    r"PROXY (?:(UNKNOWN)(?: .*)?|(TCP4|TCP6) ([0-9A-Fa-f.:]+) ([0-9A-Fa-f.:]+)"
    rf"{_PORTS})"
)

LOCAL, PROXY = 0x20, 0x21
"""Versions and commands: the balancer speaks for itself, or for a client."""

UNSPECIFIED, TCP4, TCP6, UNIX = 0x00, 0x11, 0x21, 0x31
"""Families with their protocols."""

_SIZES = {UNSPECIFIED: 0, TCP4: 12, TCP6: 36, UNIX: 216}
"""Bytes of the addresses."""

Header = tuple[str | None, int]
"""The client's address, None if that is the balancer's; and the header's length."""


def read_header(data: bytes) -> Header | None:
    """
    Read the header at the beginning of *data*; None if it is not complete yet.

    Raises:
        ValueError: it is none.
    """
    if _BEGINS_2.startswith(data[: len(_BEGINS_2)]):
        return _read_2(data)
    if _BEGINS_1.startswith(data[: len(_BEGINS_1)]):
        return _read_1(data)
    raise ValueError("no PROXY header")


def _read_1(data: bytes) -> Header | None:
    line, ends, _ = data[:MOST_BYTES_OF_1].partition(b"\r\n")
    if not ends:
        if len(data) >= MOST_BYTES_OF_1:
            raise ValueError("a line that is too long")
        return None
    found = _LINE.fullmatch(line.decode("ascii"))
    if found is None:
        raise ValueError("a line of another form")
    length = len(line) + 2
    if found[1]:
        return None, length
    kind = IPv4Address if found[2] == "TCP4" else IPv6Address
    source, _ = kind(found[3]), kind(found[4])
    return plain_address(str(source)), length


def _read_2(data: bytes) -> Header | None:
    if len(data) < len(_BEGINS_2) + 4:
        return None
    command, family = data[12], data[13]
    length = 16 + int.from_bytes(data[14:16], "big")
    if command not in {LOCAL, PROXY} or length > MOST_BYTES:
        raise ValueError("another version or command, or too long")
    if command == PROXY and length - 16 < _SIZES.get(family, MOST_BYTES):
        raise ValueError("another family, or too short")
    if len(data) < length:
        return None
    if command == LOCAL or family == UNSPECIFIED:
        return None, length
    if family == TCP4:
        return str(IPv4Address(data[16:20])), length
    if family == TCP6:
        return plain_address(str(IPv6Address(data[16:32]))), length
    return "", length


class _HeaderReader(ConnectionProtocol):
    """Reads the header, and leaves the connection to who serves it."""

    transport: Any

    def __init__(self, serving: Any, refuse: Callable[[], None] | None) -> None:
        self._serving = serving
        self._refuse = refuse
        self._received = b""
        self._is_cut = False

    def makeConnection(self, transport: Any) -> None:  # noqa: N802
        """Count the connection from its beginning, and start its timeout."""
        super().makeConnection(transport)
        self._serving.makeConnection(transport)

    def dataReceived(self, data: bytes) -> None:
        """Read the header, of which this is perhaps a part."""
        if self._is_cut:
            return
        self._received += data
        try:
            header = read_header(self._received)
        except ValueError:
            self._cut()
            return
        if header is None:
            return
        address, length = header
        if address is not None and self._refuse is not None:
            self._refuse()
            self._cut()
            return
        rest, self._received = self._received[length:], b""
        if address is not None:
            # Under TLS_CERT there is TLS between this and the channel.
            channel = getattr(self._serving, "wrappedProtocol", self._serving)
            channel.peer_host = address
        self.dataReceived = self._serving.dataReceived  # type: ignore[method-assign]
        if rest:
            self._serving.dataReceived(rest)

    def _cut(self) -> None:
        self._received, self._is_cut = b"", True
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = GONE) -> None:
        """Pass the end of the connection on."""
        self._serving.connectionLost(reason)


@implementer(IProtocolNegotiationFactory)
class _HeaderFactory(ServerFactory):
    """Puts the header before whatever serves a port."""

    noisy = False
    _log: ClassVar[Logger] = Logger()

    def __init__(self, serving: Any, proxies: Callable[[], TrustedProxies]) -> None:
        self.serving = serving
        self._proxies = proxies
        self._told_of: TrustedProxies | None = None

    @property
    def channels(self) -> Any:
        """Return the connections of clients."""
        return self.serving.channels

    def acceptableProtocols(self) -> list[bytes]:  # noqa: N802
        """Return the protocols under TLS, if that is before the header."""
        protocols: list[bytes] = self.serving.acceptableProtocols()
        return protocols

    def buildProtocol(self, addr: Any) -> Any:  # noqa: N802
        """
        Accept a connection.

        One that is not trusted may still speak for itself, as a health check does.
        """
        serving = self.serving.buildProtocol(addr)
        if serving is None:
            return None
        host = plain_address(str(getattr(addr, "host", None) or ""))
        proxies = self._proxies()
        is_trusted = not proxies.is_any or proxies.trusts(host)
        refuse = None if is_trusted else partial(self._note_refusal, host, proxies)
        return _HeaderReader(serving, refuse)

    def _note_refusal(self, host: str, proxies: TrustedProxies) -> None:
        # Once: anyone may connect as often as they like.
        if self._told_of != proxies:
            self._told_of = proxies
            self._log.warn(
                "{host} has sent a PROXY header and is not in TRUSTED_PROXIES: such "
                "connections are closed",
                host=host or "a Unix socket",
            )

    def startFactory(self) -> None:
        """Start serving."""
        self.serving.doStart()

    def stopFactory(self) -> None:
        """Stop serving."""
        self.serving.doStop()


@frozen(eq=False)
class HeaderListener:
    """A port on which each connection begins with a PROXY header."""

    port: Listener
    proxies: Callable[[], TrustedProxies]
    """Returns the proxies that may send one; if there are none, all may."""

    def listen(self, factory: Any) -> Deferred[IListeningPort]:
        """Start accepting connections."""
        return self.port.listen(_HeaderFactory(factory, self.proxies))


@implementer(IStreamClientEndpoint)
@frozen
class SpeakingForItself:
    """An endpoint that sends a header without an address before everything else."""

    _endpoint: IStreamClientEndpoint

    def connect(self, factory: Any) -> Any:
        """Connect, and send it."""
        return self._endpoint.connect(_Announcing(factory))  # type: ignore[arg-type]


@frozen(eq=False)
class _Announcing:
    _factory: Any

    def __getattr__(self, name: str) -> Any:
        return getattr(self._factory, name)

    def buildProtocol(self, addr: Any) -> Any:  # noqa: N802
        protocol = self._factory.buildProtocol(addr)
        begin = protocol.makeConnection

        def announce(transport: Any) -> None:
            transport.write(FOR_ITSELF)
            begin(transport)

        protocol.makeConnection = announce
        return protocol
