"""What can go wrong on our side, and what a caller hears of it."""

import inspect

import pytest
from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectingCancelledError, ConnectionLost
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.python.failure import Failure
from twisted.web.client import ResponseFailed, ResponseNeverReceived

from abproxy import errors
from abproxy.errors import CannotConnect, ConnectionBroken, Overloaded, ProxyError
from abproxy.http.failures import to_proxy_error

KINDS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, ProxyError)
]


@pytest.mark.parametrize("kind", KINDS)
def test_each_waiter_gets_an_error_of_its_own(kind: type[ProxyError]) -> None:
    """One object for all would gather everybody's tracebacks."""
    error = kind("why")

    twin = error.copy()

    assert twin is not error
    assert type(twin) is kind
    assert str(twin) == "why"
    assert twin.__cause__ is error


@pytest.mark.parametrize("kind", KINDS)
def test_no_error_is_a_503(kind: type[ProxyError]) -> None:
    """A published client repeats a POST answered so for ever, without a pause."""
    assert kind.status != 503


def test_only_overload_says_when_to_come_back() -> None:
    """And its twin says the same."""
    assert ProxyError("why").retry_after_s is None
    assert Overloaded("full", 7).copy().retry_after_s == 7


def wrapped(reason: Exception) -> Exception:
    """Wrap as Twisted does, and once more."""
    return ResponseFailed([Failure(ResponseNeverReceived([Failure(reason)]))])


def test_what_lies_at_the_bottom_is_what_is_said() -> None:
    """Twisted wraps errors in errors."""
    lost = to_proxy_error(wrapped(ConnectionLost()))
    refused = to_proxy_error(wrapped(Refused("no")))

    assert type(lost) is ConnectionBroken
    assert "Connection to the other side was lost" in str(lost)
    assert type(refused) is CannotConnect
    assert "refused" in str(refused)


@pytest.mark.parametrize("error", [CancelledError(), ConnectingCancelledError(None)])
def test_a_request_that_was_cancelled_is_nobodys_fault(error: Exception) -> None:
    """Whoever cancelled it knows, also if there was no connection yet."""
    assert isinstance(to_proxy_error(wrapped(error)), CancelledError)
