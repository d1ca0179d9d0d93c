"""
TLS towards the upstream: which servers are trusted, and why one is not, in words.

OpenSSL says of a certificate only that it cannot be verified, and of a server
without TLS that its version is wrong.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar
from weakref import ref

from attrs import define, field, frozen
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL.SSL import VERIFY_FAIL_IF_NO_PEER_CERT, VERIFY_PEER
from twisted.internet._sslverify import _verifyCB
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    optionsForClientTLS,
    platformTrust,
    trustRootFromCertificates,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

from abproxy.errors import HandshakeFailed, SettingsError
from abproxy.http.certificates import (
    check,
    parse_certificates,
    parse_identity,
    read_file,
)

__all__ = ["TlsFiles", "VerifyingPolicy"]

NAMES = "UPSTREAM_TLS_CERT", "UPSTREAM_TLS_KEY"
CA_NAME = "UPSTREAM_TLS_CA"
OF_SYSTEM = "SSL_CERT_FILE"
"""Names a file with the issuers to trust in the place of the system's own."""

_ADVICE = f"to trust another issuer, name its certificate in {CA_NAME} or {OF_SYSTEM}"
_UNKNOWN = f"its issuer is not known; {_ADVICE}"
_SELF_SIGNED = f"it is self-signed, and not known; {_ADVICE}"
_REASONS = {
    2: _UNKNOWN,
    7: f"the issuer that is known by this name has not signed it; {_ADVICE}",
    9: "it is not valid yet; look at the clocks",
    10: "it has expired",
    18: _SELF_SIGNED,
    19: _SELF_SIGNED,
    20: _UNKNOWN,
    21: _UNKNOWN,
    23: "it is revoked",
}
"""What the codes of OpenSSL mean (`X509_V_ERR_…` in x509_vfy.h)."""


def _refusal(code: int) -> HandshakeFailed:
    why = _REASONS.get(code, f"OpenSSL's code for it is {code}; {_ADVICE}")
    return HandshakeFailed(
        f"the certificate of the inference server is not accepted: {why}"
    )


@frozen(eq=False)
class _Material:
    """The certificates in the files."""

    identity: Mapping[str, Any] = field(repr=False)
    """Certificate and key, as arguments for `CertificateOptions`."""

    trust: Any
    """The issuers that are trusted."""

    def options_for(self, host: bytes) -> Any:
        """Return what makes connections to *host*, of any name."""
        options: Any = optionsForClientTLS(
            "a-name", trustRoot=self.trust, extraCertificateOptions=dict(self.identity)
        )
        # Given as an argument it would have to be a name that can be registered.
        text = options._hostname = options._hostnameASCII = host.decode("ascii")  # noqa: SLF001
        is_name = not (isIPAddress(text) or isIPv6Address(text))
        options._hostnameBytes = host  # noqa: SLF001
        options._hostnameIsDnsName = options._sendServerName = is_name  # noqa: SLF001
        return options


@define(kw_only=True, eq=False)
class TlsFiles:
    """
    The files with our certificate for the upstream, and with the issuers to trust.

    They are read again when they change: a certificate of short life is replaced
    while we run.

    Raises:
        SettingsError: they cannot be used.
    """

    cert: str | None = None
    key: str | None = field(default=None, repr=False)
    authority: str | None = None
    """The file with the issuers to trust; None for those that the system trusts."""

    _seen: list[tuple[int, ...]] = field(init=False, repr=False)
    _material: _Material = field(init=False, repr=False)
    _log: ClassVar[Logger] = Logger()

    def __attrs_post_init__(self) -> None:
        self._seen = list(self._look())
        self._material = self._read()

    def read(self) -> _Material:
        """Return what is in the files, or was there before one became useless."""
        seen = list(self._look())
        if seen != self._seen:
            self._seen = seen
            try:
                self._material = self._read()
            except SettingsError as error:
                self._log.error(
                    "The former certificates for the inference server stay: {why}",
                    why=error,
                )
        return self._material

    def _look(self) -> Iterator[tuple[int, ...]]:
        """Yield what changes when a file is written or replaced."""
        issuers = self.authority or os.environ.get(OF_SYSTEM)
        for file in filter(None, (self.cert, self.key, issuers)):
            try:
                found = Path(file).stat()
            except OSError:
                yield ()
            else:
                yield found.st_ino, found.st_size, found.st_mtime_ns

    def _read(self) -> _Material:
        identity: dict[str, Any] = {}
        if self.cert and self.key:
            files = zip(NAMES, (self.cert, self.key), strict=True)
            found = [read_file(name, Path(file)) for name, file in files]
            identity = parse_identity(NAMES, *found)
            check(NAMES, CertificateOptions(**identity))
        if self.authority is None:
            return _Material(identity, platformTrust())
        pem = read_file(CA_NAME, Path(self.authority))
        issuers = [
            Certificate.load(each.public_bytes(Encoding.DER))
            for each in parse_certificates(CA_NAME, pem)
        ]
        return _Material(identity, trustRootFromCertificates(issuers))


@implementer(IOpenSSLClientConnectionCreator)
@define(eq=False)
class _Verifying:
    """
    Makes connections to one host, and says why one has failed.

    What was agreed on is kept, so that later handshakes take less time.
    """

    host: bytes
    files: TlsFiles
    _material: _Material | None = field(init=False, default=None)
    _options: Any = field(init=False, default=None, repr=False)
    _last: Any = field(init=False, default=None, repr=False)
    """The connection that was made last: only after a while it has a session."""

    _last_protocol: Any = field(init=False, default=lambda: None, repr=False)
    _session: Any = field(init=False, default=None, repr=False)

    def clientConnectionForTLS(self, protocol: Any) -> Any:  # noqa: N802
        """Return the TLS connection of *protocol*."""
        material = self.files.read()
        if material is not self._material:
            self._material = material
            self._options = material.options_for(self.host)
            self._last = self._session = None
        connection = self._options.clientConnectionForTLS(protocol)
        connection.set_verify(
            VERIFY_PEER | VERIFY_FAIL_IF_NO_PEER_CERT, self._explain(protocol)
        )
        self._keep_session()
        if self._session is not None:
            connection.set_session(self._session)
        self._last, self._last_protocol = connection, ref(protocol)
        return connection

    def _keep_session(self) -> None:
        """Keep the session of the last connection; none after a failed handshake."""
        if self._last is None:
            return
        if self._last.get_finished() is not None:
            self._session = self._last.get_session()
            return
        protocol = self._last_protocol()
        if protocol is None or not protocol.connected:
            self._session = None

    def _explain(self, protocol: Any) -> Any:
        """Return what verifies a certificate, and tells *protocol* what is wrong."""
        about = self._options._hostnameIsDnsName, self._options._hostnameASCII  # noqa: SLF001
        # A resumed session is not verified again: nothing would let it go.
        weak = ref(protocol)

        def explain(
            made: Any,
            certificate: Any,
            code: int,
            depth: int,
            ok: bool,  # noqa: FBT001
        ) -> bool:
            waiting = weak()
            if waiting is None:
                return False
            verify = _verifyCB(waiting, *about)
            accepted: bool = verify(made, certificate, code, depth, ok)
            if not ok:
                waiting.failVerification(Failure(_refusal(code)))
            return accepted

        return explain


@implementer(IPolicyForHTTPS)
@define(eq=False)
class VerifyingPolicy:
    """Trusts the issuers in the files, or else what the system trusts."""

    files: TlsFiles = field(factory=TlsFiles)
    _creators: dict[bytes, _Verifying] = field(init=False, factory=dict, repr=False)

    def creatorForNetloc(self, hostname: bytes, port: int) -> _Verifying:  # noqa: ARG002, N802
        """Return what makes connections to *hostname*."""
        host = hostname.partition(b"%")[0]
        if host not in self._creators:
            self._creators[host] = _Verifying(host, self.files)
        return self._creators[host]
