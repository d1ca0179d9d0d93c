"""The settings of the operator, read from the command line."""

from collections.abc import Callable

from attrs import frozen
from twisted.python.usage import UsageError

__all__ = ("Settings", "boolean", "model_name", "port", "seconds", "whole")

_MODELS = ("minilm", "static")
_MAX_PORT = 65_535


@frozen(kw_only=True)
class Settings:
    """The limits of the server; the defaults are TEI's."""

    max_client_batch_size: int = 32
    """Inputs in one request."""

    max_concurrent_requests: int = 512
    """Permits: inputs accepted and not yet answered."""

    auto_truncate: bool = True
    api_key: str | None = None
    drain_timeout_s: float = 30.0


def whole(name: str, at_least: int) -> Callable[[str], int]:
    """Return a reader of whole numbers for the option *name*."""

    def read(text: str) -> int:
        if not text.isascii() or not text.isdigit() or int(text) < at_least:
            raise UsageError(
                f"--{name}: {text!r} is not a whole number of at least {at_least}"
            )
        return int(text)

    return read


def seconds(name: str) -> Callable[[str], float]:
    """Return a reader of durations for the option *name*."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not 0 <= value < float("inf"):
            raise UsageError(f"--{name}: {text!r} is not a number of seconds")
        return value

    return read


def boolean(name: str) -> Callable[[str], bool]:
    """Return a reader of true and false for the option *name*."""

    def read(text: str) -> bool:
        if text.lower() not in ("true", "false"):
            raise UsageError(f"--{name}: {text!r} is neither true nor false")
        return text.lower() == "true"

    return read


def port(text: str) -> str:
    """Read a port number or a Twisted endpoint."""
    if ":" in text or (text.isascii() and text.isdigit() and int(text) <= _MAX_PORT):
        return text
    raise UsageError(f"--port: {text!r} is neither a port number nor an endpoint")


def model_name(text: str) -> str:
    """Read the name of a model."""
    if text in _MODELS:
        return text
    raise UsageError(f"--model: {text!r} is none of {', '.join(_MODELS)}")
