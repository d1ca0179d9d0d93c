"""Errors of our own, as a caller gets them."""

import inspect

import pytest

from abproxy import errors
from abproxy.errors import Overloaded, ProxyError

KINDS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, ProxyError)
]


@pytest.mark.parametrize("kind", KINDS)
def test_each_waiter_gets_an_error_of_its_own(kind: type[ProxyError]) -> None:
    """One object for all would gather the tracebacks of all."""
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
