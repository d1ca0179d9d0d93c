"""
Listening on a port, which is opened before anything else is made.

A port that cannot be had is then one clear line on the terminal, in the
foreground and before becoming a daemon, and the proxy never runs without one.
Calls that arrive before the proxy is ready wait in the kernel's queue.  How many
connections may be open is limited by the files that the system allows.
"""

import os
import resource as process
import socket
from contextlib import suppress
from itertools import chain
from typing import Any, Protocol

from attrs import define, frozen
from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import ConnectionDone, VerifyError
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocolFactory,
    IProtocolNegotiationFactory,
)
from twisted.internet.protocol import Protocol as ConnectionProtocol
from twisted.internet.protocol import ServerFactory
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure
from zope.interface import implementer

from abproxy.errors import SettingsError
from abproxy.http.openssl import is_instance

__all__ = [
    "PROXY_HEADER",
    "BoundSocket",
    "Listener",
    "OpenPort",
    "is_held_by_systemd",
    "make_listener",
    "raise_connection_limit",
    "shown",
    "where",
]

BACKLOG = 1024
"""Connections that may wait to be accepted; the kernel may allow fewer."""

PROXY_HEADER = "haproxy:"
"""What stands before a port on which connections begin with a PROXY header."""

SYSTEMD = "systemd:"
"""What endpoints begin with whose sockets systemd has opened, and keeps."""

SPARE_FILES = 100
"""Files for all but connections: libraries, logs, and surplus clients."""

_log = Logger()


class Listener(Protocol):
    """A port that is open, but accepts no connection yet."""

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Begin to accept connections."""


@define(eq=False)
class BoundSocket:
    """A TCP port."""

    reactor: Any
    socket: socket.socket

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Begin to accept connections."""
        with self.socket as ours:
            port = self.reactor.adoptStreamPort(ours.fileno(), ours.family, factory)
        return succeed(port)

    def close(self) -> None:
        """Close the port, on which no connection was accepted."""
        self.socket.close()


class _Refused(ConnectionProtocol):
    """A connection for which there is no room."""

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.abortConnection()


@implementer(IProtocolNegotiationFactory)
@define(eq=False)
class _Placeholder(ServerFactory):
    """Stands in for the factory that serves until that one is made."""

    noisy = False
    serving: Any = None

    def buildProtocol(self, addr: Any) -> Any:  # noqa: N802
        if self.serving is None:
            raise ValueError("nothing that clients can connect to")
        # A port takes None for an answer; TLS, which wraps this, does not.
        return self.serving.buildProtocol(addr) or _Refused()

    def acceptableProtocols(self) -> list[bytes]:  # noqa: N802
        """
        Return the protocols under TLS.

        Without an answer Twisted ends the handshake with every client that asks,
        which nearly all do.
        """
        protocols: list[bytes] = self.serving.acceptableProtocols()
        return protocols

    def doStop(self) -> None:  # noqa: N802
        if self.serving is not None:
            self.serving.doStop()


@frozen(eq=False)
class OpenPort:
    """Any other endpoint that Twisted knows."""

    port: Any
    placeholder: _Placeholder

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Begin to accept connections."""
        self.placeholder.serving = factory
        factory.doStart()
        self.port.startReading()
        return succeed(self.port)

    def close(self) -> None:
        """Close it at once, as no connection was accepted."""
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
        reason = error.strerror or error
        message = f"cannot listen on {ip}: {reason}; IP takes our own addresses"
        raise SettingsError(message) from error
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
    Open the port, given as a number or as a Twisted endpoint.

    Raises:
        SettingsError: it cannot be had, or is no endpoint.
    """
    if ":" not in port:
        return BoundSocket(reactor, bind(ip, int(port)))
    # The header is read by what serves the port, which may be another process.
    return _open(reactor, port.removeprefix(PROXY_HEADER))


def is_held_by_systemd(port: str) -> bool:
    """Return whether systemd goes on to listen on a *port* that we close."""
    return port.removeprefix(PROXY_HEADER).startswith(SYSTEMD)


def _open(reactor: Any, endpoint: str) -> OpenPort:
    placeholder = _Placeholder()
    results: list[Any] = []
    try:
        found: Any = serverFromString(reactor, endpoint)
        # OpenSSL looks closer at key and certificate when it makes a context of them,
        # which Twisted leaves to the first connection.
        tls = getattr(found, "_sslContextFactory", None)
        if tls is not None:
            tls.getContext()
        opening = found.listen(placeholder)
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
    return OpenPort(port, placeholder)


def _mistake(endpoint: str, error: Exception) -> str:
    """Return what is wrong with an *endpoint*, more plainly than *error* does."""
    if isinstance(error, LookupError) and endpoint.startswith(SYSTEMD):
        return "systemd has passed no such socket; is there a socket unit, and started?"
    if isinstance(error, VerifyError):
        return "the certificate does not belong to the key"
    if any(is_instance(error, of, "Error") for of in ("OpenSSL.crypto", "OpenSSL.SSL")):
        reasons = ", ".join(str(each[-1]) for each in chain(*error.args))
        return f"key and certificate must be PEM that OpenSSL can use: {reasons}"
    if isinstance(error, OSError) and error.filename:
        return f"cannot read {error.filename}: {error.strerror}"
    return f"not an endpoint: {error}"


def where(port: Any) -> str:
    """Return the URL of a listening *port*, or the path of its socket."""
    factory: Any = getattr(port, "factory", None)
    while hasattr(factory, "serving"):
        factory = factory.serving
    is_tls = is_instance(factory, "twisted.protocols.tls", "TLSMemoryBIOFactory")
    return shown(port.getHost(), "https" if is_tls else "http")


def shown(address: Any, scheme: str = "http") -> str:
    """Return the URL of an *address*, or the path of a Unix socket."""
    host = getattr(address, "host", None)
    if host is None:
        return os.fsdecode(getattr(address, "name", None) or str(address))
    host = f"[{host}]" if ":" in host else host
    return f"{scheme}://{host}:{address.port}"


def raise_connection_limit(
    wanted: int, system: Any = process, *, is_default: bool = False
) -> int:
    """
    Raise the limit of open files for *wanted* connections, if the system allows.

    Each is an open file, and has another one upstream.  Most systems let a process
    open 1,024 files, and many more if it asks.  If clients could take them all,
    none would be left for the upstream, and all calls would fail.

    Returns:
        The number of connections it may have.
    """
    files = _allowed_files(2 * wanted + SPARE_FILES, system)
    most = max((files - SPARE_FILES) // 2, 1)
    if most < wanted:
        # Who has set nothing has nothing to mend.
        _log.emit(
            LogLevel.info if is_default else LogLevel.warn,
            "MAX_CONNECTIONS is {chosen}, but only {files} files may be open: "
            "{room} connections are served",
            chosen=wanted,
            files=files,
            room=most,
        )
    return min(most, wanted)


def _allowed_files(wanted: int, system: Any) -> int:
    """Ask for *wanted* open files, and return how many the system allows."""
    soft, hard = system.getrlimit(system.RLIMIT_NOFILE)
    if soft == system.RLIM_INFINITY or soft >= wanted:
        return wanted
    most = wanted if hard == system.RLIM_INFINITY else min(wanted, hard)
    with suppress(OSError, ValueError):  # some systems have one more limit
        system.setrlimit(system.RLIMIT_NOFILE, (most, hard))
        soft = most
    return int(soft)
