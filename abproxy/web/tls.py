"""
TLS on the clients' port: a certificate that is read again when its files change.

Only new connections use the new one.  A file that cannot be used changes nothing,
as when a certificate has been replaced and its key not yet.
"""

from pathlib import Path
from typing import Any

from attrs import define, field, frozen
from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IListeningPort,
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
    IReactorTime,
)
from twisted.internet.ssl import CertificateOptions
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from abproxy.errors import SettingsError
from abproxy.http.certificates import check, parse_identity, read_file
from abproxy.web.listen import Listener

__all__ = [
    "LOOK_EVERY_S",
    "Certificate",
    "TlsListener",
    "Unverified",
]

LOOK_EVERY_S = 10.0
"""How often the files are looked at, in seconds."""

NAMES = "TLS_CERT", "TLS_KEY"

Files = tuple[bytes, bytes]
"""What is in the files of certificate and key."""

_log = Logger()


@implementer(IOpenSSLServerConnectionCreator)
@define(eq=False)
class Certificate:
    """
    The certificate of the clients' port, and its key.

    Raises:
        SettingsError: the files cannot be used.
    """

    cert_file: Path
    """The certificate, and behind it those that lead to one that clients know."""

    key_file: Path
    clock: IReactorTime = field(repr=False)
    _seen: Files | str = field(init=False, repr=False)
    """What was in the files when they were looked at last, or why they had none."""

    _options: CertificateOptions = field(init=False, repr=False)
    _looking: LoopingCall = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._seen = self._read()
        self._options = _options_of(self._seen)
        self._looking = LoopingCall(self.look)
        self._looking.clock = self.clock

    def serverConnectionForTLS(self, protocol: Any) -> SSL.Connection:  # noqa: N802
        """Return the TLS side of a new connection."""
        del protocol
        return SSL.Connection(self._options.getContext())

    def listener_on(self, port: Listener) -> "TlsListener":
        """Return a *port* on which clients speak TLS, with this certificate."""
        return TlsListener(port, self)

    def watch(self) -> None:
        """Start to look at the files regularly."""
        self._looking.start(LOOK_EVERY_S, now=False)

    def stop(self) -> None:
        """Stop looking at the files."""
        if self._looking.running:
            self._looking.stop()

    def look(self) -> None:
        """Apply what is in the files, if that has changed and can be used."""
        former, self._seen = self._seen, self._read()
        if self._seen == former:
            return
        try:
            self._options = _options_of(self._seen)
        except SettingsError as error:
            _log.error("The former certificate stays: {why}", why=error)
        else:
            _log.info("TLS_CERT and TLS_KEY have changed, and are used")

    def _read(self) -> Files | str:
        try:
            cert_file, key_file = self.cert_file, self.key_file
            return read_file(NAMES[0], cert_file), read_file(NAMES[1], key_file)
        except SettingsError as error:
            return str(error)


def _options_of(found: Files | str) -> CertificateOptions:
    if isinstance(found, str):
        raise SettingsError(found)
    options = CertificateOptions(**parse_identity(NAMES, *found))
    check(NAMES, options)
    return options


class _TlsFactory(TLSMemoryBIOFactory):
    """Puts TLS before the site that serves clients."""

    wrappedFactory: Any

    def __init__(self, certificate: Certificate, site: Any) -> None:
        super().__init__(certificate, isClient=False, wrappedFactory=site)
        self._certificate = certificate

    @property
    def channels(self) -> Any:
        """Return the connections of clients."""
        return self.wrappedFactory.channels

    def buildProtocol(self, addr: Any) -> Any:  # noqa: N802
        """Accept a connection, unless there are far too many."""
        channel = self.wrappedFactory.buildProtocol(addr)
        return None if channel is None else self.protocol(self, channel)

    def startFactory(self) -> None:
        """Start to look at the files regularly, now that clients are accepted."""
        self._certificate.watch()

    def stopFactory(self) -> None:
        """Stop looking, as no client can connect any more."""
        self._certificate.stop()


@frozen(eq=False)
class TlsListener:
    """A port on which clients speak TLS."""

    port: Listener
    certificate: Certificate

    def listen(self, factory: Any) -> Deferred[IListeningPort]:
        """Start accepting connections."""
        return self.port.listen(_TlsFactory(self.certificate, factory))


@implementer(IOpenSSLClientConnectionCreator)
class Unverified:
    """Makes connections to our own port, of which the certificate is known."""

    def clientConnectionForTLS(self, protocol: Any) -> SSL.Connection:  # noqa: N802
        """Return the TLS side of a new connection."""
        del protocol
        return SSL.Connection(SSL.Context(SSL.TLS_METHOD))
