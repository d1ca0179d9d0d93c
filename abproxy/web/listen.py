"""
The port is taken before anything else is made.

A port that is not to be had is then one clear line on the terminal, in the
foreground and before becoming a daemon, and the proxy never runs deaf.  Calls
that arrive before the proxy is ready wait in the kernel's queue.
"""

import socket
from itertools import chain
from typing import Any, Protocol

from attrs import define, frozen
from OpenSSL import SSL, crypto
from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import ConnectionDone, VerifyError
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocolFactory,
    IProtocolNegotiationFactory,
)
from twisted.internet.protocol import Protocol as Connected
from twisted.internet.protocol import ServerFactory
from twisted.internet.tcp import Port
from twisted.python.failure import Failure
from zope.interface import implementer

from abproxy.settings import SettingsError

__all__ = ["BoundSocket", "Listener", "OpenPort", "close_port", "make_listener"]

BACKLOG = 1024
"""Connections that may wait to be accepted; the kernel may allow fewer."""


class Listener(Protocol):
    """A place where clients can come in."""

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Begin to let them in."""


@define(eq=False)
class BoundSocket:
    """A TCP port that is already ours."""

    reactor: Any
    socket: socket.socket

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Let clients in."""
        with self.socket as ours:
            port = self.reactor.adoptStreamPort(ours.fileno(), ours.family, factory)
        return succeed(port)

    def close(self) -> None:
        """Give the port back at once: nobody was let in."""
        self.socket.close()


class _TurnedAway(Connected):
    """A connection for which there is no room."""

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.abortConnection()


@implementer(IProtocolNegotiationFactory)
@define(eq=False)
class _Placeholder(ServerFactory):
    """Stands in for the factory that serves, until that is made."""

    noisy = False
    serving: Any = None

    def buildProtocol(self, addr: Any) -> Any:  # noqa: N802
        if self.serving is None:
            raise ValueError("nothing that clients can connect to")
        # A port takes None for an answer; TLS, which wraps this, does not.
        return self.serving.buildProtocol(addr) or _TurnedAway()

    def acceptableProtocols(self) -> list[bytes]:  # noqa: N802
        """
        Say what is spoken under TLS.

        Without a word of ours Twisted ends the handshake with every client that
        asks, which are nearly all.
        """
        protocols: list[bytes] = self.serving.acceptableProtocols()
        return protocols

    def doStop(self) -> None:  # noqa: N802
        if self.serving is not None:
            self.serving.doStop()


@frozen(eq=False)
class OpenPort:
    """Any other endpoint that Twisted knows; nobody is let in yet."""

    port: Any
    doorstep: _Placeholder

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Let clients in."""
        self.doorstep.serving = factory
        factory.doStart()
        self.port.startReading()
        return succeed(self.port)

    def close(self) -> None:
        """Give the place back at once: nobody was let in."""
        # What stopListening() does when the reactor runs, which it may never.
        self.port.connectionLost(Failure(ConnectionDone()))


def bind(ip: str, port: int) -> socket.socket:
    """
    Listen on *ip* and *port*; connections queue up until they are accepted.

    Raises:
        SettingsError: the address or the port cannot be had.
    """
    try:
        [found, *_] = socket.getaddrinfo(
            ip, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, address = found
        ours = socket.socket(family, kind, protocol)
    except OSError as error:
        raise SettingsError(f"cannot listen on {ip}: {error}") from error
    try:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        ours.setblocking(False)
        ours.bind(address)
        ours.listen(BACKLOG)
    except OSError as error:
        ours.close()
        reason = error.strerror or error
        raise SettingsError(f"cannot listen on {ip} port {port}: {reason}") from error
    return ours


def make_listener(reactor: Any, ip: str, port: str) -> BoundSocket | OpenPort:
    """
    Take the port, given as a number or as a Twisted endpoint.

    Raises:
        SettingsError: it cannot be had, or is no endpoint.
    """
    if ":" not in port:
        return BoundSocket(reactor, bind(ip, int(port)))
    return _open(reactor, port)


def _open(reactor: Any, endpoint: str) -> OpenPort:
    doorstep = _Placeholder()
    results: list[Any] = []
    try:
        found: Any = serverFromString(reactor, endpoint)
        # OpenSSL looks closer at key and certificate when it makes a context of them,
        # which Twisted leaves to the first connection.
        tls = getattr(found, "_sslContextFactory", None)
        if tls is not None:
            tls.getContext()
        opening = found.listen(doorstep)
    except Exception as error:  # each kind of endpoint has its own mistakes
        message = f"cannot listen on {endpoint}: {_mistake(endpoint, error)}"
        raise SettingsError(message) from error
    opening.addBoth(results.append)
    # All of Twisted's own endpoints open at once, or do not.
    port = results[0] if results else None
    if isinstance(port, Failure):
        cause = getattr(port.value, "socketError", port.value)
        reason = getattr(cause, "strerror", None) or cause
        raise SettingsError(f"cannot listen on {endpoint}: {reason}")
    if not isinstance(port, FileDescriptor):
        message = f"cannot listen on {endpoint}: nothing that clients can connect to"
        raise SettingsError(message)
    port.stopReading()
    return OpenPort(port, doorstep)


def _mistake(endpoint: str, error: Exception) -> str:
    """Say what is wrong with an *endpoint* where its own words do not."""
    if isinstance(error, LookupError) and endpoint.startswith("systemd:"):
        return "systemd has passed no such socket; is there a socket unit, and started?"
    if isinstance(error, VerifyError):
        return "the certificate does not belong to the key"
    if isinstance(error, (crypto.Error, SSL.Error)):
        reasons = ", ".join(str(each[-1]) for each in chain(*error.args))
        return f"key and certificate must be PEM that OpenSSL can use: {reasons}"
    return f"not an endpoint: {error}"


def close_port(reactor: Any, port: Any) -> Deferred[None]:
    """
    Let nobody in any more, but those who are in already for all they know.

    Connections in the kernel's queue are open to their clients, and may carry
    calls; closing the port would reset them.
    """
    reactor.callLater(0, _let_in_who_waits, port)
    closed: Deferred[None] = maybeDeferred(port.stopListening)
    return closed


def _let_in_who_waits(port: Any) -> None:
    if isinstance(port, Port) and port.connected:
        # By itself it takes no more at once than came lately.
        port.numberAccepts = BACKLOG
        Port.doRead(port)
