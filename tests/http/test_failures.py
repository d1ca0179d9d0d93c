"""What errors of Twisted mean to a caller."""

from errno import ECONNREFUSED, EHOSTUNREACH

import pytest
from OpenSSL.SSL import Error as SSLError
from twisted.internet.defer import CancelledError
from twisted.internet.error import (
    ConnectingCancelledError,
    ConnectionLost,
    getConnectError,
)
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.python.failure import Failure
from twisted.web.client import ResponseFailed, ResponseNeverReceived

from abproxy.errors import CannotConnect, ConnectionBroken, HandshakeFailed
from abproxy.http.failures import to_proxy_error


def wrapped(reason: Exception) -> Exception:
    """Wrap as Twisted does, and once more."""
    return ResponseFailed([Failure(ResponseNeverReceived([Failure(reason)]))])


def test_the_innermost_error_is_what_is_said() -> None:
    """Twisted wraps errors in errors."""
    lost = to_proxy_error(wrapped(ConnectionLost()))
    refused = to_proxy_error(wrapped(Refused("no")))

    assert type(lost) is ConnectionBroken
    assert "Connection to the other side was lost" in str(lost)
    assert type(refused) is CannotConnect
    assert "refused" in str(refused)


@pytest.mark.parametrize(
    ("number", "said"),
    [(ECONNREFUSED, "Connection refused"), (EHOSTUNREACH, "No route to host")],
)
def test_why_there_is_no_connection_is_said_once(number: int, said: str) -> None:
    """In the words of the system, to which Twisted adds its own."""
    error = to_proxy_error(getConnectError(OSError(number, said)))

    assert str(error) == f"cannot reach the inference server: {said}"


@pytest.mark.parametrize("error", [CancelledError(), ConnectingCancelledError(None)])
def test_a_request_that_was_cancelled_is_no_fault(error: Exception) -> None:
    """Also if there was no connection yet."""
    assert isinstance(to_proxy_error(wrapped(error)), CancelledError)


@pytest.mark.parametrize(
    "said", ["tlsv13 alert certificate required", "tls alert handshake failure"]
)
def test_a_server_that_wants_a_certificate_is_said_to(said: str) -> None:
    """OpenSSL's words alone leave open whose certificate it is."""
    error = to_proxy_error(wrapped(SSLError([("SSL routines", "", said)])))

    assert type(error) is HandshakeFailed
    assert said in str(error)
    assert "seems to want a certificate of its client" in str(error)
