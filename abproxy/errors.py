"""
What can go wrong on our side of the road, and how a caller hears of it.

An upstream's own answer, good or bad, is never one of these: it is passed on
as it is.  Every error here has one status, one short type and a message that
says what to do; the route's dialect decides in which JSON it is written.
"""

from typing import ClassVar

import msgspec

__all__ = [
    "BadRequest",
    "CannotConnect",
    "ConnectionBroken",
    "HeadTooLarge",
    "InternalError",
    "Overloaded",
    "ProxyError",
    "TooLarge",
    "TooSlow",
    "Unauthorized",
    "UpstreamBroken",
    "UpstreamTimeout",
    "openai_error_body",
    "tei_error_body",
]


class ProxyError(Exception):
    """Something that abproxy itself has to tell a caller."""

    status: ClassVar[int] = 500
    error_type: ClassVar[str] = "Backend"

    def again(self) -> "ProxyError":
        """
        Make a new error that says the same, for one more waiter.

        One exception object given to many Deferreds would gather the
        tracebacks of all of them.
        """
        twin = type(self)(*self.args)
        twin.__cause__ = self
        return twin

    @property
    def retry_after_s(self) -> int | None:
        """Whole seconds for a `Retry-After` header, if coming back may help."""
        return None


class BadRequest(ProxyError):
    """The request cannot be forwarded as HTTP."""

    status = 400
    error_type = "Validation"


class Unauthorized(ProxyError):
    """The door wants a key; as TEI's, the answer has no body."""

    status = 401


class HeadTooLarge(ProxyError):
    """The head of a request is over our limit."""

    status = 431
    error_type = "Validation"


class TooSlow(ProxyError):
    """A request did not arrive in time."""

    status = 408
    error_type = "Timeout"


class TooLarge(ProxyError):
    """A request body is over our limit."""

    status = 413
    error_type = "Validation"


class Overloaded(ProxyError):
    """
    There is no room to wait.

    The status is never 503: a published client repeats a POST answered with
    503 for ever and without a pause.
    """

    status = 429
    error_type = "Overloaded"

    def __init__(self, message: str, retry_after_s: int = 1) -> None:
        super().__init__(message, retry_after_s)

    def __str__(self) -> str:
        return str(self.args[0])

    @property
    def retry_after_s(self) -> int:
        """Whole seconds until there should be room."""
        return int(self.args[1])


class InternalError(ProxyError):
    """A bug of ours: the log holds the traceback."""


class UpstreamBroken(ProxyError):
    """The inference server gave no usable answer."""

    status = 502
    error_type = "Upstream"


class CannotConnect(UpstreamBroken):
    """No connection to the inference server: nothing was sent."""


class ConnectionBroken(UpstreamBroken):
    """The connection ended before a whole answer had come."""


class UpstreamTimeout(ProxyError):
    """The inference server did not answer in time."""

    status = 504
    error_type = "Timeout"


def tei_error_body(error: ProxyError) -> bytes:
    """Write *error* as text-embeddings-inference does: `{"error","error_type"}`."""
    return msgspec.json.encode({"error": str(error), "error_type": error.error_type})


def openai_error_body(error: ProxyError) -> bytes:
    """Write *error* as TEI's OpenAI routes do: `{"message","code","type"}`."""
    return msgspec.json.encode(
        {"message": str(error), "code": error.status, "type": error.error_type}
    )
