"""
OpenSSL, and what belongs to it: it takes 14 MB, and is imported where TLS is spoken.

Twisted imports it wherever it is installed, and does without it where it is not, as
without its extra `tls`.  What is imported after that finds it as usual, so TLS may
also begin when the proxy runs.
"""

import sys
from collections.abc import Iterable
from operator import attrgetter
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamClientEndpoint
from zope.interface import implementer

__all__ = ["TlsEndpoint", "import_reactor", "is_instance"]

WITHOUT_TLS = "tcp:", "tcp6:", "unix:", "systemd:"
"""What descriptions of Twisted's endpoints begin with if these cannot have TLS."""


def import_reactor(endpoints: Iterable[str]) -> Any:
    """
    Return the reactor, which is imported here with all of Twisted that wants OpenSSL.

    Args:
        endpoints: descriptions of what Twisted itself will listen on; only if it needs
            OpenSSL for none of them that is left out.
    """
    modules: dict[str, Any] = sys.modules
    if all(map(_is_plain, endpoints)) and "OpenSSL" not in modules:
        # So Python is told that a module cannot be found (language reference, 5.3.1).
        modules["OpenSSL"] = None
        try:
            _import_twisted()
        finally:
            del modules["OpenSSL"]
    from twisted.internet import reactor  # noqa: PLC0415  importing it is choosing it

    return reactor


def _is_plain(endpoint: str) -> bool:
    of_port = endpoint.removeprefix("haproxy:")
    return ":" not in of_port or of_port.startswith(WITHOUT_TLS)


def _import_twisted() -> None:
    """Import the modules that decide at their import whether there is TLS."""
    import twisted.internet.endpoints  # noqa: PLC0415
    import twisted.internet.reactor  # noqa: PLC0415
    import twisted.web.client  # noqa: F401, PLC0415


def is_instance(thing: object, module: str, name: str) -> bool:
    """Return whether *thing* is a *name* of *module*, without importing that."""
    found = sys.modules.get(module)
    return found is not None and isinstance(thing, getattr(found, name))


@implementer(IStreamClientEndpoint)
@frozen(eq=False)
class TlsEndpoint:
    """
    Puts TLS on the connections of an *endpoint*.

    Twisted's `wrapClientTLS` does so only if OpenSSL was there when it was imported.
    """

    creator: Any
    """Makes the TLS side of a connection: `IOpenSSLClientConnectionCreator`."""

    endpoint: IStreamClientEndpoint

    def connect(self, protocolFactory: Any) -> Deferred[Any]:
        """Connect; fires with the protocol that *protocolFactory* has made."""
        from twisted.protocols.tls import TLSMemoryBIOFactory  # noqa: PLC0415  large

        secured = TLSMemoryBIOFactory(self.creator, True, protocolFactory)
        return self.endpoint.connect(secured).addCallback(attrgetter("wrappedProtocol"))
