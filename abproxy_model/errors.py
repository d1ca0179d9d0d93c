"""
The errors with which a request is refused, in TEI's words.

Every class knows its TEI type and status; how it is written depends on the
route and is decided in `responses`.
"""

from typing import ClassVar

__all__ = (
    "BackendError",
    "EmptyError",
    "ModelError",
    "ModelUnavailable",
    "OverloadedError",
    "ValidationError",
)


class ModelError(Exception):
    """A request that the model's server refuses, in the shape TEI gives it."""

    status: ClassVar[int]
    error_type: ClassVar[str]
    counted_as: str
    """The `err` label of `te_request_failure`."""

    def __init__(self, message: str, *, counted_as: str = "validation") -> None:
        super().__init__(message)
        self.counted_as = counted_as


class EmptyError(ModelError):
    """There is nothing to embed."""

    status = 400
    error_type = "Empty"


class ValidationError(ModelError):
    """The request is well formed, but asks for more than is allowed."""

    status = 422
    error_type = "Validation"


class BackendError(ModelError):
    """The model cannot do what the route asks for."""

    status = 424
    error_type = "Backend"


class OverloadedError(ModelError):
    """There are fewer permits left than the request has inputs."""

    status = 429
    error_type = "Overloaded"

    def __init__(self) -> None:
        super().__init__("Model is overloaded", counted_as="overloaded")


class ModelUnavailable(Exception):
    """The model cannot be loaded; the message says what to install."""
