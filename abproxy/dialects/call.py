"""
What a call is, once it is understood: items, options, and who may share.

A lane is everything about a call but its items.  Two calls are in one lane
only if they would be the same request with the same items.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec
from attrs import field, frozen
from msgspec import Struct

from abproxy.errors import ProxyError
from abproxy.http.messages import HeaderList, Response, UpstreamRequest

__all__ = [
    "BadAnswer",
    "Call",
    "Dialect",
    "Items",
    "LaneKey",
    "ParsedBody",
    "PartResult",
    "Rows",
]


class BadAnswer(ValueError):
    """An answer with status 200 does not hold one row for each item."""


class Items(Struct, frozen=True, kw_only=True):
    """The inputs of a call, and how its answer presents their rows."""

    raw: Sequence[bytes]
    """Each item as the client's own JSON text."""

    lengths: Sequence[int]
    """How long each item is, in characters or token ids (as TEI counts)."""

    is_list: bool = True
    """Whether the answer is a list of rows, or the one row by itself."""


class ParsedBody(Struct, frozen=True, kw_only=True):
    """The body of a call, as a dialect reads it."""

    items: Items

    options: bytes
    """All other members, in one spelling: `,"name":value` for each."""


class Rows(Struct, frozen=True, kw_only=True):
    """What one part gets of a batch's answer."""

    raw: Sequence[bytes]
    """The rows of its items, cut from the answer; one piece may hold several."""

    frame: Any = None
    """What else of the answer the dialect needs to write this part's own."""


class PartResult(Struct, frozen=True, kw_only=True):
    """What a waiter fires with."""

    response: Response
    """The upstream's answer to the whole batch."""

    rows: Rows | None = None
    """This part's rows; None where the response is to be passed on as it is."""

    calls: int = 1
    """How many parts were in the batch."""

    queue_s: float = 0.0
    """How long the part waited before it left."""

    upstream_s: float = 0.0
    """How long the upstream took."""


class Dialect(Protocol):
    """The language of one route: four verbs between bytes and calls."""

    @property
    def path(self) -> bytes:
        """The route on which batches of this dialect are sent."""

    @property
    def body(self) -> type[msgspec.Struct]:
        """The type of the bodies that are understood."""

    def read(self, body: bytes) -> ParsedBody | None:
        """Understand *body*, or say None: then it is relayed as it is."""

    def batch_body(self, items: Sequence[bytes], options: bytes) -> bytes:
        """Write the request body for *items* that share *options*."""

    @property
    def has_usage(self) -> bool:
        """Whether an answer tells how many tokens it cost."""

    def cut(
        self,
        body: bytes,
        lengths: Sequence[Sequence[int]],
        order: Sequence[int] | None = None,
    ) -> list[Rows]:
        """
        Cut a good answer into one slice for each part.

        Args:
            body: the upstream's answer.
            lengths: for each part the lengths of its items.
            order: which item was sent at each place, if they were sorted.

        Raises:
            BadAnswer: the rows are not one for each item.
        """

    def write(self, slices: Sequence[Rows], *, is_list: bool) -> bytes:
        """Write the answer of a call from the slices of its parts, in order."""

    def error_body(self, error: ProxyError) -> bytes:
        """Write an error of ours as this route's clients expect it."""


@frozen(kw_only=True, cache_hash=True)
class LaneKey:
    """The calls that may share a batch: they differ in nothing but their items."""

    dialect: Dialect

    path: bytes
    """Where a shared batch is sent: the route after aliases, with its query."""

    headers: HeaderList = field(repr=False)
    """Every header that can change an answer, credentials among them."""

    options: bytes

    is_bulk: bool = False
    """Whether these calls are in no hurry."""

    is_personal: bool = False
    """Whether the credentials are the client's own, and so is any quota."""

    def request(
        self, items: Sequence[bytes], traces: tuple[Any, ...] = ()
    ) -> UpstreamRequest:
        """Write the one request that carries *items* of several calls."""
        return UpstreamRequest(
            path=self.path,
            headers=(*self.headers, (b"Content-Type", b"application/json")),
            body=self.dialect.batch_body(items, self.options),
            items=len(items),
            traces=traces,
        )


def _nameless() -> bytes:
    return b"-"


class Call(Struct, frozen=True, kw_only=True, eq=False):
    """One client request for a batchable route."""

    lane: LaneKey

    items: Items

    alone: UpstreamRequest
    """The request exactly as the client sent it, for when nobody shares."""

    client: bytes = b""
    """Who calls: a key, or an address where there are no keys."""

    trace: Any = None
    """A thread that somebody follows."""

    name: Callable[[], bytes] = _nameless
    """Say how client and log know the request."""

    def __repr__(self) -> str:
        """Say where it belongs: a text or a key is never printed."""
        return f"Call({self.lane!r})"
