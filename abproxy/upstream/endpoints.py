"""
The way to the host that the operator named.

Twisted takes only what may be registered as a domain for a name, and fails for all
others at each connection.  A name in a container network, `text_embeddings` for one,
need not be such: what the resolver of the system finds is a name.
"""

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from attrs import field, frozen
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
)
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.web.client import URI
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from abproxy.http.openssl import TlsEndpoint

if TYPE_CHECKING:
    from abproxy.upstream.tls import VerifyingPolicy

__all__ = [
    "EndpointFactory",
    "address_of",
    "at_address",
    "is_name",
    "make_endpoint",
    "policy_of",
    "uri_of",
    "without_zone",
]


class _NamedEndpoint(HostnameEndpoint):
    """Connects to a host of any name."""

    @staticmethod
    def _hostAsBytesAndText(host: Any) -> tuple[bool, bytes, str]:  # noqa: N802
        return False, host.encode("ascii"), host


def uri_of(url: bytes) -> URI:
    """Return the parts of *url*, to the letter."""
    uri: URI = URI.fromBytes(url)
    # In a URL the mark before the zone of an address is escaped (RFC 6874).
    if b":" in uri.host:
        uri.host = uri.host.replace(b"%25", b"%")
    return uri


def without_zone(host: bytes) -> bytes:
    """Return *host* as others know it: a zone is a matter of this machine."""
    return host.partition(b"%")[0]


def is_name(url: str) -> bool:
    """Return whether the host of *url* has to be looked up."""
    host = uri_of(url.encode("ascii")).host.decode("ascii")
    return not (isIPAddress(host) or isIPv6Address(host))


def at_address(url: str, address: str | None) -> str:
    """Return *url* with an *address* in the place of its host, if there is one."""
    if address is None:
        return url
    parts = urlsplit(url)
    host = f"[{address}]" if ":" in address else address
    _, colon, port = parts.netloc.rpartition(":")
    return urlunsplit(parts._replace(netloc=f"{host}{colon}{port}" if colon else host))


def make_endpoint(reactor: Any, uri: URI, timeout_s: float) -> IStreamClientEndpoint:
    """Return what connects to the host of *uri*, without TLS."""
    host = uri.host.decode("ascii")
    if "%" in host and isIPv6Address(host):
        # Looked up as a name it would lose its zone.
        return TCP6ClientEndpoint(reactor, host, uri.port, timeout_s)
    return _NamedEndpoint(reactor, host, uri.port, timeout_s)


def policy_of(
    cert: str | None = None, key: str | None = None, authority: str | None = None
) -> Callable[[], "VerifyingPolicy"]:
    """Return what reads the files of `TlsFiles` when it is called first."""

    @cache
    def policy() -> "VerifyingPolicy":
        from abproxy.upstream.tls import TlsFiles, VerifyingPolicy  # noqa: PLC0415  large

        return VerifyingPolicy(TlsFiles(cert=cert, key=key, authority=authority))

    return policy


@implementer(IAgentEndpointFactory)
@frozen(eq=False)
class EndpointFactory:
    """Makes endpoints for Twisted's agent, with TLS where the URL wants it."""

    reactor: Any
    connect_timeout_s: float
    policy: Callable[[], "VerifyingPolicy"] = field(factory=policy_of)
    """Returns the rules for certificates; called when a URL needs TLS."""

    address: str | None = None
    """Where the server is, if its name is not to be looked up for a connection."""

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:  # noqa: N802
        """Return what connects to the server of *uri*."""
        endpoint = self._endpoint(uri)
        if uri.scheme == b"http":
            return endpoint
        creator = self.policy().creatorForNetloc(uri.host, uri.port)
        return TlsEndpoint(creator, endpoint)

    def _endpoint(self, uri: URI) -> IStreamClientEndpoint:
        if self.address is None:
            return make_endpoint(self.reactor, uri, self.connect_timeout_s)
        is_6 = isIPv6Address(self.address)
        kind = TCP6ClientEndpoint if is_6 else TCP4ClientEndpoint
        return kind(self.reactor, self.address, uri.port, self.connect_timeout_s)


def address_of(url: str) -> str:
    """Return what operators call the server at *url*: host, port and path alone."""
    parts = urlsplit(url)
    return parts.netloc.rpartition("@")[2] + parts.path.rstrip("/")
