"""
Errors that abproxy itself answers with.

An upstream's own answer, good or bad, is never one of these: it is passed on
as it is.  Every error here has one status, one short type, a word for metrics and
logs, and a message that says what to do; the route's dialect writes it as JSON.
"""

from typing import ClassVar

import msgspec

__all__ = [
    "MODEL_CHANGED",
    "AccountUsedUp",
    "BadRequest",
    "BodyTooLarge",
    "CallTooLarge",
    "CannotConnect",
    "CannotTranslate",
    "ClientQueueFull",
    "ConnectionBroken",
    "DeadlinePassed",
    "HandshakeFailed",
    "HeadersTooLarge",
    "InternalError",
    "MemoryFull",
    "MethodNotAllowed",
    "ModelChanged",
    "ModelNotFound",
    "Overloaded",
    "ProxyError",
    "QueueFull",
    "QueueTimeout",
    "RateExceeded",
    "RefusedTogether",
    "RequestTimeout",
    "SettingsError",
    "TooManyConnections",
    "TooManyWithoutKey",
    "Unauthorized",
    "UpstreamBroken",
    "UpstreamFull",
    "UpstreamTimeout",
    "openai_error_body",
    "tei_error_body",
]


class SettingsError(Exception):
    """A setting cannot be used; the message is for the operator."""


MODEL_CHANGED = (
    "the inference server was given another model while it computed this request, "
    "and rows of two models do not belong together: send it again"
)


class ProxyError(Exception):
    """An error of our own, with what callers see of it."""

    status: ClassVar[int] = 500
    error_type: ClassVar[str] = "Backend"
    reason: ClassVar[str] = "bug"

    allow: ClassVar[bytes] = b""
    """Methods for an `Allow` header; empty if none is sent."""

    def copy(self) -> "ProxyError":
        """
        Return an equal error, for one more waiting call.

        One exception object given to many Deferreds would collect the
        tracebacks of all of them.
        """
        twin = type(self)(*self.args)
        twin.__cause__ = self
        return twin

    @property
    def retry_after_s(self) -> int | None:
        """Return seconds for a `Retry-After` header; None if a retry does not help."""
        return None


class BadRequest(ProxyError):
    """The request cannot be forwarded as HTTP."""

    status = 400
    error_type = "Validation"
    reason = "bad_request"


class Unauthorized(ProxyError):
    """A key is required; as with TEI, the answer has no body."""

    status = 401
    reason = "key"


class ModelNotFound(ProxyError):
    """A request names a model that is not served."""

    status = 404
    error_type = "NotFound"
    reason = "model"


class MethodNotAllowed(ProxyError):
    """
    The method is not passed on.

    It is `TRACE`: a server that echoes the request would reveal the key that we
    add to it.
    """

    status = 405
    error_type = "Validation"
    reason = "method"
    allow = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"


class HeadersTooLarge(ProxyError):
    """The request line and headers are over our limit."""

    status = 431
    error_type = "Validation"
    reason = "head_size"


class RequestTimeout(ProxyError):
    """A request did not arrive in time."""

    status = 408
    error_type = "Timeout"
    reason = "slow_request"


class BodyTooLarge(ProxyError):
    """A request body is over our limit."""

    status = 413
    error_type = "Validation"
    reason = "body_size"


class CallTooLarge(ProxyError):
    """A call is larger than a limit that it could never keep; the message names it."""

    status = 413
    error_type = "Validation"
    reason = "call_size"


class CannotTranslate(ProxyError):
    """A call cannot be said in the language of the inference server."""

    status = 422
    error_type = "Validation"
    reason = "translation"


class Overloaded(ProxyError):
    """
    The call cannot be queued.

    The status is never 503: a published client repeats a POST answered with
    503 endlessly and without a pause.
    """

    status = 429
    error_type = "Overloaded"
    reason = "overload"

    def __init__(self, message: str, retry_after_s: int = 1) -> None:
        super().__init__(message, retry_after_s)

    def __str__(self) -> str:
        return str(self.args[0])

    @property
    def retry_after_s(self) -> int:
        """Return the whole seconds until a retry should succeed."""
        return int(self.args[1])


class QueueFull(Overloaded):
    """The queue is full."""

    reason = "waiting_room"


class ClientQueueFull(Overloaded):
    """One client has as much in the queue as it may have."""

    reason = "client_share"


class RateExceeded(Overloaded):
    """A client sends more inputs per second than it may."""

    reason = "rate"


class MemoryFull(Overloaded):
    """Clients hold as much memory as they may."""

    reason = "memory"


class TooManyConnections(Overloaded):
    """As many connections are open as are allowed."""

    reason = "connections"


class TooManyWithoutKey(Overloaded):
    """As many requests without a key are passed on as are allowed at once."""

    reason = "without_key"


class UpstreamFull(Overloaded):
    """The inference server is full: it refused another call, or several at once."""

    reason = "upstream_full"


class AccountUsedUp(Overloaded):
    """The account at the inference server has used up what it may have in a minute."""

    reason = "account"


class InternalError(ProxyError):
    """A bug of ours: the log holds the traceback."""


class UpstreamBroken(ProxyError):
    """The inference server gave no usable answer."""

    status = 502
    error_type = "Upstream"
    reason = "upstream_answer"


class RefusedTogether(UpstreamBroken):
    """A request of several calls failed, and this call was not tried alone."""

    reason = "refused_together"


class ModelChanged(UpstreamBroken):
    """The rows of a call are not of one model, also when it was computed again."""

    reason = "model_changed"


class CannotConnect(UpstreamBroken):
    """No connection to the inference server: nothing was sent."""

    reason = "upstream_unreachable"


class HandshakeFailed(UpstreamBroken):
    """
    There is no agreement on TLS, which waiting will not bring about.

    It counts as no connection, too.
    """

    reason = "upstream_unreachable"


class ConnectionBroken(UpstreamBroken):
    """The connection ended before the whole answer had arrived."""

    reason = "upstream_connection"


class UpstreamTimeout(ProxyError):
    """The inference server did not answer in time."""

    status = 504
    error_type = "Timeout"
    reason = "upstream_timeout"


class QueueTimeout(UpstreamTimeout):
    """A call waited too long to be sent."""

    reason = "no_turn"


class DeadlinePassed(UpstreamTimeout):
    """The deadline of the caller has passed."""

    reason = "deadline"


def tei_error_body(error: ProxyError) -> bytes:
    """Return *error* as TEI writes it: `{"error","error_type"}`."""
    return msgspec.json.encode({"error": str(error), "error_type": error.error_type})


def openai_error_body(error: ProxyError) -> bytes:
    """
    Return *error* as TEI's OpenAI routes write it: `{"message","code","type"}`.

    That there is no such model is told as OpenAI does: clients look at the code.
    """
    if isinstance(error, ModelNotFound):
        told = {
            "message": str(error),
            "type": "invalid_request_error",
            "param": "model",
            "code": "model_not_found",
        }
        return msgspec.json.encode({"error": told})
    return msgspec.json.encode(
        {"message": str(error), "code": error.status, "type": error.error_type}
    )
