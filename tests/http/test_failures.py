"""What errors of Twisted mean to a caller."""

import pytest
from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectingCancelledError, ConnectionLost
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.python.failure import Failure
from twisted.web.client import ResponseFailed, ResponseNeverReceived

from abproxy.errors import CannotConnect, ConnectionBroken
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


@pytest.mark.parametrize("error", [CancelledError(), ConnectingCancelledError(None)])
def test_a_request_that_was_cancelled_is_no_fault(error: Exception) -> None:
    """Also if there was no connection yet."""
    assert isinstance(to_proxy_error(wrapped(error)), CancelledError)
