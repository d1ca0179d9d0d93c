"""
Foreign words in ours and ours in foreign ones, on the way upstream.

Both ways, batch and relay, translate header lines and errors here and nowhere
else.
"""

from typing import NoReturn

from twisted.internet.defer import CancelledError
from twisted.internet.error import (
    ConnectError,
    ConnectingCancelledError,
    DNSLookupError,
)
from twisted.web.http_headers import Headers

from abproxy.errors import CannotConnect, ConnectionBroken, UpstreamTimeout
from abproxy.http.messages import HeaderList

__all__ = ["as_headers", "timed_out", "to_proxy_error"]


def as_headers(lines: HeaderList) -> Headers:
    """Make Twisted's headers of *lines*."""
    headers = Headers()
    for name, value in lines:
        headers.addRawHeader(name, value)
    return headers


def timed_out(_result: object, timeout_s: float) -> NoReturn:
    """Say what a deadline means that `Deferred.addTimeout` has kept."""
    raise UpstreamTimeout(
        f"the inference server did not answer within {timeout_s:g} seconds"
    )


def to_proxy_error(error: Exception) -> Exception:
    """
    Say what *error* means to a caller.

    Twisted wraps errors in errors.  A request that was cancelled is one of
    them, and is no fault of the inference server's.
    """
    reason = _bottom_of(error)
    if isinstance(reason, (CancelledError, ConnectingCancelledError)):
        return CancelledError()
    said = str(reason) or repr(reason)
    if isinstance(reason, (ConnectError, DNSLookupError)):
        return CannotConnect(f"cannot reach the inference server: {said}")
    return ConnectionBroken(f"the connection to the inference server broke: {said}")


def _bottom_of(error: Exception) -> Exception:
    reasons = getattr(error, "reasons", None)
    return _bottom_of(reasons[0].value) if reasons else error
