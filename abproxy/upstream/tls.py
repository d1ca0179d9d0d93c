"""
TLS towards the upstream: why a handshake has failed, in words.

OpenSSL says of a certificate only that it cannot be verified, and of a server
without TLS that its version is wrong.
"""

from typing import Any
from weakref import ref

from attrs import frozen
from OpenSSL.SSL import VERIFY_FAIL_IF_NO_PEER_CERT, VERIFY_PEER
from twisted.internet._sslverify import _verifyCB
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.python.failure import Failure
from twisted.web.client import BrowserLikePolicyForHTTPS
from zope.interface import implementer

from abproxy.errors import HandshakeFailed

__all__ = ["VerifyingPolicy"]

_ADVICE = "to trust another issuer, name its certificate in SSL_CERT_FILE"
_UNKNOWN = f"its issuer is not known; {_ADVICE}"
_SELF_SIGNED = f"it is self-signed, and not known; {_ADVICE}"
_REASONS = {
    2: _UNKNOWN,
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


@implementer(IOpenSSLClientConnectionCreator)
@frozen
class _Explaining:
    """Makes connections as Twisted does, and says why one has failed."""

    options: Any

    def clientConnectionForTLS(self, protocol: Any) -> Any:  # noqa: N802
        """Make the connection of *protocol*."""
        connection = self.options.clientConnectionForTLS(protocol)
        verify = _verifyCB(
            protocol,
            self.options._hostnameIsDnsName,  # noqa: SLF001
            self.options._hostnameASCII,  # noqa: SLF001
        )
        weak = ref(protocol)

        def explain(
            made: Any,
            certificate: Any,
            code: int,
            depth: int,
            ok: bool,  # noqa: FBT001
        ) -> bool:
            accepted: bool = verify(made, certificate, code, depth, ok)
            waiting = weak()
            if not ok and waiting is not None:
                waiting.failVerification(Failure(_refusal(code)))
            return accepted

        connection.set_verify(VERIFY_PEER | VERIFY_FAIL_IF_NO_PEER_CERT, explain)
        return connection


class VerifyingPolicy(BrowserLikePolicyForHTTPS):
    """Trusts what the system trusts, or `SSL_CERT_FILE` names."""

    def creatorForNetloc(self, hostname: bytes, port: int) -> _Explaining:  # noqa: N802
        """Return what makes connections to *hostname*."""
        options: Any = super().creatorForNetloc(b"a-name", port)
        name = hostname.partition(b"%")[0]
        # Given as an argument it would have to be a name that can be registered.
        text = options._hostname = options._hostnameASCII = name.decode("ascii")  # noqa: SLF001
        is_name = not (isIPAddress(text) or isIPv6Address(text))
        options._hostnameBytes = name  # noqa: SLF001
        options._hostnameIsDnsName = options._sendServerName = is_name  # noqa: SLF001
        return _Explaining(options)
