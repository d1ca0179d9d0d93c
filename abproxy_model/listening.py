"""
Opening the port: by number, by endpoint, or inherited.

It is opened while the service is made, so that a port in use is one line and an
exit code, and not a process that runs without a port.
"""

import os
import socket
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import quoteStringArgument, serverFromString
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.python.failure import Failure

__all__ = ("CannotListen", "adopt", "listen")

_BACKLOG = 512


class CannotListen(Exception):
    """There is no port to serve on; the message says why."""


def listen(
    reactor: Any, factory: IProtocolFactory, port: str, ip: str
) -> IListeningPort:
    """
    Open *port*, a number or an endpoint.

    Raises:
        CannotListen: it is in use, not allowed, or no endpoint.
    """
    endpoint = port if ":" in port else _tcp(port, ip)
    try:
        opening = serverFromString(reactor, endpoint).listen(factory)
    except Exception as error:  # noqa: BLE001 - each kind has its own mistakes
        raise CannotListen(f"--port: {endpoint!r} is no endpoint: {error}") from None
    return _result(opening, endpoint)


def adopt(reactor: Any, factory: IProtocolFactory, descriptor: int) -> IListeningPort:
    """
    Serve on a socket that listens already, inherited as *descriptor*.

    Raises:
        CannotListen: it is not such a socket.
    """
    try:
        with socket.socket(fileno=os.dup(descriptor)) as inherited:
            listening = inherited.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            family = inherited.family
            # Twisted accepts until no connection is left, and must not wait there.
            inherited.setblocking(False)
    except OSError as error:
        raise CannotListen(f"--listen-fd: {descriptor}: {error.strerror}") from None
    if not listening:
        raise CannotListen(f"--listen-fd: {descriptor} is not a listening socket")
    port: IListeningPort = reactor.adoptStreamPort(descriptor, family, factory)
    os.close(descriptor)
    return port


def _tcp(port: str, ip: str) -> str:
    kind = "tcp6" if ":" in ip else "tcp"
    return f"{kind}:{port}:interface={quoteStringArgument(ip)}:backlog={_BACKLOG}"


def _result(opening: Deferred[Any], endpoint: str) -> IListeningPort:
    """The open port, or an error: ports on this machine are opened at once."""
    results: list[Any] = []
    opening.addBoth(results.append)
    result = results[0]
    if isinstance(result, Failure):
        raise CannotListen(f"cannot listen on {endpoint}: {_reason(result.value)}")
    port: IListeningPort = result
    return port


def _reason(error: Any) -> object:
    """The system's error message, without Twisted's text around it."""
    problem = getattr(error, "socketError", error)
    return getattr(problem, "strerror", None) or problem
