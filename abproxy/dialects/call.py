"""
A parsed call: its items, and the lane that they belong to.

A lane is everything about a call but its items.  Two calls are in one lane
only if they would be the same request with the same items.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from typing import Any

from msgspec import DecodeError, Raw, Struct
from msgspec.json import Decoder, decode
from twisted.internet.defer import Deferred

from abproxy import __version__
from abproxy.dialects.members import OF_TEI, MemberRules
from abproxy.errors import ProxyError
from abproxy.http.messages import HeaderList, Response, UpstreamRequest
from abproxy.http.sharing import MEMBER

__all__ = [
    "BadAnswer",
    "Call",
    "Dialect",
    "Items",
    "LaneKey",
    "MayJoin",
    "ParsedBody",
    "PartResult",
    "Rows",
    "UnsplittableAnswer",
    "may_join_all",
]


OWN_LINES = (
    (b"Content-Type", b"application/json"),
    (b"Accept", b"application/json"),
    (b"User-Agent", b"abproxy/" + __version__.encode()),
)
"""The identity of a shared request: it is no client's."""


_decode_options = Decoder(dict[str, Raw]).decode


class BadAnswer(ValueError):
    """An answer with status 200 does not hold one row for each item."""


class UnsplittableAnswer(BadAnswer):
    """
    The rows are there, but in another form than the route's.

    That is the server's way, whatever the items are: a call to it must be alone.
    """


class Items(Struct, frozen=True, kw_only=True):
    """The inputs of a call, and how its answer presents their rows."""

    raw: Sequence[bytes]
    """Each item as the client's own JSON text."""

    lengths: Sequence[int]
    """How long each item is, in characters or token ids (as TEI counts)."""

    is_list: bool = True
    """Whether the answer is a list of rows, or the one row by itself."""

    has_texts: bool = False
    """Whether the answer repeats the text of each row, as that of /rerank may."""


class ParsedBody(Struct, frozen=True, kw_only=True):
    """The body of a call, parsed by its dialect."""

    items: Items

    options: bytes
    """All other members, in one form: `,"name":value` for each."""

    alone_by: str | None = None
    """The member that keeps the call from being shared or split, if there is one."""


class Rows(Struct, frozen=True, kw_only=True):
    """One part's rows of a batch's answer."""

    raw: Sequence[bytes]
    """The rows as the upstream wrote them; one piece may hold several, with commas."""

    frame: Any = None
    """What else of the answer the dialect needs to write this part's own."""


class PartResult(Struct, frozen=True, kw_only=True):
    """The result of one part of a call."""

    response: Response
    """The upstream's answer to the whole batch."""

    rows: Rows | None = None
    """This part's rows; None where the response is to be passed on as it is."""

    calls: int = 1
    """How many parts were in the batch; 0 if the rows were known before."""

    queue_s: float = 0.0
    """How long the part waited before it was sent."""

    upstream_s: float = 0.0
    """How long the upstream took."""


def may_join_all(_call: Any, _results: Sequence[PartResult]) -> bool:
    """Return that rows may be joined, wherever they come from."""
    return True


class Dialect(ABC):
    """The language of one route, between bytes and calls."""

    path: bytes
    """The route of its calls."""

    of_task: str | None = None
    """The one task of models for which it is batched; None if it is for any."""

    translates: bool = False
    """Whether requests and answers of the server are another route's, also alone."""

    body: type[Struct]
    """The type of the bodies that are parsed."""

    has_usage: bool = False
    """Whether an answer says how many tokens it cost."""

    @property
    def batch_path(self) -> bytes:
        """Return the route on which batches of this dialect are sent."""
        return self.path

    @abstractmethod
    def read(self, body: bytes, rules: MemberRules = OF_TEI) -> ParsedBody | None:
        """Parse *body* by the *rules*; None if it is to be relayed as it is."""

    @abstractmethod
    def batch_body(self, items: Sequence[bytes], options: bytes) -> bytes:
        """Write the request body for *items* that share *options*."""

    @abstractmethod
    def split(
        self,
        body: bytes,
        lengths: Sequence[Sequence[int]],
        order: Sequence[int] | None = None,
    ) -> list[Rows]:
        """
        Split a good answer into the rows of each part.

        Args:
            body: the upstream's answer.
            lengths: for each part the lengths of its items.
            order: which item was sent at each place, if they were sorted.

        Raises:
            UnsplittableAnswer: the answer has another form, as any other would.
            BadAnswer: the rows are not one for each item.
        """

    @abstractmethod
    def write(self, parts: Sequence[Rows], items: Items) -> bytes:
        """Write the answer of a call for *items* from the rows of its parts."""

    def width(self, row: bytes) -> int | None:  # noqa: ARG002
        """
        Return how many numbers *row* has, or the first of several with commas.

        None where rows of one model may have different numbers of them.
        """
        return None

    def pack_frame(self, frame: Any) -> bytes:  # noqa: ARG002
        """Write the frame of a part's rows so that it can be kept."""
        return b""

    def unpack_frame(self, packed: bytes) -> Any:  # noqa: ARG002
        """
        Return the frame that `pack_frame` wrote.

        Raises:
            ValueError: it is no such frame.
        """
        return None

    @abstractmethod
    def error_body(self, error: ProxyError) -> bytes:
        """Write an error of ours as this route's clients expect it."""


class LaneKey(Struct, frozen=True, kw_only=True, cache_hash=True):
    """The properties that calls of one batch have in common: all but their items."""

    dialect: Dialect

    path: bytes
    """Where a shared batch is sent: the route after aliases, with its query."""

    headers: HeaderList
    """Every header that can change an answer, credentials among them."""

    options: bytes

    is_bulk: bool = False
    """Whether these calls may wait behind others."""

    is_personal: bool = False
    """Whether the credentials are the client's own, and so is any quota."""

    serial: int = 0
    """
    0 for calls that may share; another for each that goes alone and whole.

    Such a call is sent as its client sent it, however large it is.
    """

    one_by_one: bool = False
    """Whether each call is sent alone, as too many like it have failed."""

    def __repr__(self) -> str:
        """Return it without headers: a key may be among them."""
        return f"LaneKey({self.path!r}, {self.options!r})"

    @property
    def model(self) -> str | None:
        """Return the model that its calls ask for by name."""
        named = self._options.get("model")
        with suppress(DecodeError):
            return decode(named, type=str) if named else None
        return None

    @property
    def size(self) -> int:
        """Return how many bytes of its clients' it holds."""
        lines = sum([len(name) + len(value) for name, value in self.headers])
        return len(self.path) + len(self.options) + lines

    def request(
        self, items: Sequence[bytes], traces: tuple[Any, ...] = ()
    ) -> UpstreamRequest:
        """Write the one request that carries *items* of several calls."""
        return UpstreamRequest(
            path=self.path,
            headers=self.headers + self._own_lines(),
            body=self.dialect.batch_body(items, self.options),
            items=len(items),
            traces=traces,
        )

    def differences(self, other: "LaneKey") -> list[str]:
        """Return the lines, and as `body.NAME` the members, that differ in *other*."""
        mine, theirs = self._values(), other._values()  # noqa: SLF001  another of us
        names = dict.fromkeys((*mine, *theirs))
        return [name for name in names if mine.get(name) != theirs.get(name)]

    def _values(self) -> dict[str, list[bytes]]:
        values: dict[str, list[bytes]] = {}
        for name, value in self.headers:
            values.setdefault(name.decode("latin-1"), []).append(value)
        for member, raw in self._options.items():
            values[MEMBER + member] = [bytes(raw)]
        if self.is_bulk:
            values["X-Priority"] = [b"bulk"]
        return values

    @property
    def _options(self) -> dict[str, Raw]:
        return _decode_options(b"{%b}" % self.options.removeprefix(b","))

    def _own_lines(self) -> HeaderList:
        """Return what a shared request says of itself, where its lane does not."""
        if not self.headers:
            return OWN_LINES
        said = {name.lower() for name, _ in self.headers}
        return tuple(line for line in OWN_LINES if line[0].lower() not in said)


def _no_id() -> bytes:
    return b"-"


class Call(Struct, frozen=True, kw_only=True, eq=False):
    """One client request for a batchable route."""

    lane_key: LaneKey

    items: Items

    alone: UpstreamRequest
    """The request exactly as the client sent it, for when no other call shares it."""

    client: bytes = b""
    """The client: its key, or its address where there are no keys."""

    sender: Hashable = None
    """The sender of calls like it: a key with its address, or a connection."""

    may_be_known: bool = True
    """Whether rows that were computed for others, or before, will do."""

    may_be_kept: bool = True
    """Whether its rows may be remembered."""

    trace: Any = None
    """The span of this call, if it is traced."""

    request_id: Callable[[], bytes] = _no_id
    """Return the request id."""

    def __repr__(self) -> str:
        """Return its lane and no more: a text or a key is never printed."""
        return f"Call({self.lane_key!r})"


MayJoin = Callable[[Call, Sequence[PartResult]], bool | Deferred[bool]]
"""Return whether rows of several answers may be in one: they must be of one model."""
