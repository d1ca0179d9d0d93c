"""Translation of Twisted's errors on the way to the upstream into ours."""

import os
from typing import Any, NoReturn

from twisted.internet.defer import CancelledError
from twisted.internet.error import (
    ConnectError,
    ConnectingCancelledError,
    DNSLookupError,
)
from twisted.python.failure import Failure

from abproxy.errors import (
    CannotConnect,
    ConnectionBroken,
    HandshakeFailed,
    ProxyError,
    UpstreamTimeout,
)
from abproxy.http.openssl import is_instance

__all__ = ["as_proxy_failure", "not_in_time", "timed_out", "to_proxy_error"]


def not_in_time(timeout_s: float) -> UpstreamTimeout:
    """Return the error of a deadline."""
    return UpstreamTimeout(
        f"the inference server did not answer within {timeout_s:g} seconds"
    )


def timed_out(_result: object, timeout_s: float) -> NoReturn:
    """Fail with the error of a deadline, for `Deferred.addTimeout`."""
    raise not_in_time(timeout_s)


def to_proxy_error(error: Exception) -> Exception:
    """
    Return what *error* means to a caller.

    A request that was cancelled is no fault of the inference server: for that
    it is a `CancelledError`.
    """
    reason = _innermost(error)
    if isinstance(reason, (CancelledError, ConnectingCancelledError)):
        return CancelledError()
    if isinstance(reason, ProxyError):
        return reason
    if is_instance(reason, "OpenSSL.SSL", "Error"):
        return HandshakeFailed(_explain(reason))
    if is_instance(reason, "service_identity", "VerificationError"):
        return HandshakeFailed(_OTHER_NAME)
    said = str(reason) or repr(reason)
    if isinstance(reason, (ConnectError, DNSLookupError)):
        number = getattr(reason, "osError", None)
        # Twisted puts words of its own before those of the system.
        said = os.strerror(number) if isinstance(number, int) else said
        return CannotConnect(f"cannot reach the inference server: {said}")
    return ConnectionBroken(f"the connection to the inference server broke: {said}")


_OTHER_NAME = (
    "the certificate of the inference server is not accepted: it is for another name "
    "than the one in INFERENCE_SERVICE_URL; UPSTREAM_TLS_CA does not help there"
)

_NO_TLS = frozenset(
    {"http request", "packet length too long", "record layer failure"}
    | {"unknown protocol", "wrong version number"}
)
"""What OpenSSL says of an answer that is no TLS."""


_WANTS_CERTIFICATE = ("alert certificate required", "alert handshake failure")
"""What it says of a server that wants one, since TLS 1.3 and before that."""


def _explain(error: Exception) -> str:
    said = [str(each[-1]) for each in error.args[0]] if error.args else []
    if not _NO_TLS.isdisjoint(said):
        return (
            "the inference server does not speak TLS there: "
            "INFERENCE_SERVICE_URL should begin with http://"
        )
    why = ", ".join(said) or "it gives no reason"
    if any(each.endswith(_WANTS_CERTIFICATE) for each in said):
        why += (
            "; it seems to want a certificate of its client: "
            "UPSTREAM_TLS_CERT and UPSTREAM_TLS_KEY"
        )
    return f"no TLS with the inference server: {why}"


def as_proxy_failure(failure: Failure) -> Failure:
    """Return *failure* as callers know it: an error of ours, or a cancellation."""
    if failure.check(CancelledError, ProxyError):
        return failure
    error: Any = failure.value
    told = to_proxy_error(error)
    told.__cause__ = error
    return Failure(told)


def _innermost(error: Exception) -> Exception:
    # Twisted wraps errors in errors.
    reasons = getattr(error, "reasons", None)
    return _innermost(reasons[0].value) if reasons else error
