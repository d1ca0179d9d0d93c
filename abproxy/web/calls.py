"""
From a client's request to a call, or to the decision that it is none.

First the head is read, which is the same for many requests of a client, and then
the body.  What is not plainly understood is not refused: it is relayed, and the
upstream decides what to answer.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count

from attrs import define, evolve, field, frozen

from abproxy.dialects.call import Call, Dialect, LaneKey, ParsedBody
from abproxy.dialects.members import OF_TEI, MemberRules
from abproxy.dialects.routes import dialect_of, may_be_batched
from abproxy.errors import CannotTranslate
from abproxy.events import Observer, RequestInfo
from abproxy.http.headers import Credentials, end_to_end, read_cache_control
from abproxy.http.messages import HeaderList, UpstreamRequest
from abproxy.http.sharing import BUILT_IN, MEMBER, LineRules, SortedLines
from abproxy.web.auth import Caller

__all__ = ["CallHead", "CallReader", "Takes"]

_JSON = re.compile(
    rb'application/(?:[\w.+-]+\+)?json[ \t]*(?:;[ \t]*charset="?utf-8"?[ \t]*)?\Z',
    re.IGNORECASE,
)

_PLAIN_TARGET = re.compile(rb"[/\w.-]+(?:\?[\w.~=&%+-]+)?")
"""A target that no client or server on the way would spell in another way."""

CREDENTIALS = frozenset({b"authorization", b"x-api-key", b"api-key"})
"""By these the upstream knows whose quota it is."""

OF_OWN_PAGES = frozenset({b"origin", b"accept-language"})
"""What browsers add to the calls of a page, whether its script wants it or not."""

LONGEST_OPTIONS = 4096
"""Longer options are forgotten with their call: they are as long as a body may be."""

Takes = Callable[[Sequence[bytes]], bool]
"""Return whether so many inputs fit into a batch, or may be split to fit."""

_SERIALS: Iterator[int] = count(1)


@define(kw_only=True, eq=False)
class CallHead:
    """The head of a request for a batched route."""

    dialect: Dialect
    target: bytes
    path: bytes
    headers: HeaderList = field(repr=False)
    lines: SortedLines = field(repr=False)
    members: MemberRules = field(repr=False)
    takes: Takes = field(repr=False)
    is_personal: bool
    is_bulk: bool
    may_be_known: bool
    may_be_kept: bool
    note: Callable[[LaneKey], None] = field(repr=False)
    """Called with each lane that is made for calls that share."""

    note_alone: Callable[[str], None] = field(repr=False)
    """Called with the line or member for which a call goes alone."""

    _lane: LaneKey | None = field(init=False, default=None, repr=False)
    """The lane of the last call: the next one is often in the same."""

    def read(self, body: bytes) -> ParsedBody | None:
        """
        Parse the *body* of a call; None if the request is to be relayed.

        Raises:
            CallTooLarge: it has more inputs than a call may have.
            CannotTranslate: the upstream has another route only, which cannot do it.
        """
        parsed = self.dialect.read(body, self.members)
        if parsed is None or self.takes(parsed.items.raw):
            return parsed
        if self.dialect.translates:
            raise CannotTranslate("more inputs than the inference server takes at once")
        return None

    def call(
        self, parsed: ParsedBody, body: bytes, request: RequestInfo, caller: Caller
    ) -> Call:
        """Return the call of this head and *body*, which is parsed already."""
        items, trace, lane = parsed.items, request.trace, self._lane
        if self.lines.alone_by or parsed.alone_by:
            lane = self._lane_of_one(parsed)
        elif lane is None or lane.options != parsed.options:
            lane = self._lane_of(parsed.options)
            if len(lane.options) <= LONGEST_OPTIONS:
                self._lane = lane
                self.note(lane)
        target = self.target
        if self.dialect.translates:
            target = lane.path
            body = self.dialect.batch_body(items.raw, lane.options)
        return Call(
            lane_key=lane,
            items=items,
            alone=UpstreamRequest(
                path=target,
                headers=self.headers,
                body=body,
                items=len(items.raw),
                traces=() if trace is None else (trace,),
            ),
            client=caller.client,
            sender=caller.sender,
            may_be_known=self.may_be_known,
            may_be_kept=self.may_be_kept,
            trace=trace,
            request_id=request.request_id,
        )

    def _lane_of_one(self, parsed: ParsedBody) -> LaneKey:
        self.note_alone(self.lines.alone_by or f"{MEMBER}{parsed.alone_by}")
        return self._lane_of(parsed.options, next(_SERIALS))

    def _lane_of(self, options: bytes, serial: int = 0) -> LaneKey:
        return LaneKey(
            dialect=self.dialect,
            path=self.path,
            headers=self.lines.shared,
            options=options,
            is_bulk=self.is_bulk,
            is_personal=self.is_personal,
            serial=serial,
        )


@frozen(kw_only=True)
class CallReader:
    """Reads the heads of calls."""

    credentials: Credentials

    task: str | None = None
    """What the upstream's model does, if that is known."""

    translated: Mapping[bytes, Dialect] = field(factory=dict)
    """The routes that the upstream has in another language only."""

    lines: LineRules = BUILT_IN
    members: MemberRules = OF_TEI
    """What keeps calls from sharing a batch."""

    takes: Takes = field(default=lambda _items: True, repr=False)
    observer: Observer = field(factory=Observer, repr=False)

    _last: dict[bytes, LaneKey] = field(init=False, factory=dict, repr=False)
    """The lane that was made last for each route."""

    def may_be_batched(self, method: bytes, target: bytes) -> bool:
        """Return whether a request must be read whole to know what it is."""
        return self._translated(method, target) is not None or may_be_batched(
            method, target, self.task
        )

    def _translated(self, method: bytes, target: bytes) -> Dialect | None:
        path = target.partition(b"?")[0]
        return self.translated.get(path) if method == b"POST" else None

    def open(self, request: RequestInfo, caller: Caller) -> CallHead | None:
        """Read the head of *request* of *caller*; None if it is to be relayed."""
        # Klein takes `//embed` for `/embed` and `post` for `POST`, so what the
        # request itself says counts.
        if not self.may_be_batched(request.method, request.target):
            return None
        dialect = self._translated(request.method, request.target) or dialect_of(
            request.target, self.task
        )
        if dialect is None or not _PLAIN_TARGET.fullmatch(request.target):
            return None
        types = request.headers.getRawHeaders(b"Content-Type", [])
        if len(types) != 1 or not _JSON.match(types[0]):
            return None
        received = end_to_end(request.headers.getAllRawHeaders())
        headers = self.credentials.on(received)
        may_be_known, may_be_kept = read_cache_control(received)
        query = request.target.partition(b"?")[2]
        return CallHead(
            dialect=dialect,
            target=request.target,
            path=dialect.batch_path + (b"?" + query if query else b""),
            headers=headers,
            lines=self._sort(_without_own_origin(request, headers)),
            members=self.members,
            takes=self.takes,
            is_personal=self._are_personal(headers),
            is_bulk=caller.is_bulk,
            may_be_known=may_be_known,
            may_be_kept=may_be_kept,
            note=self._note,
            note_alone=self.observer.went_alone,
        )

    def _note(self, lane: LaneKey) -> None:
        """Note in what a *lane* differs from the last one of its route."""
        route = lane.dialect.path
        last = self._last.get(route)
        if last == lane:
            return
        self._last[route] = lane
        if last is not None:
            self.observer.kept_apart(lane.differences(last))

    def _sort(self, headers: HeaderList) -> SortedLines:
        """Sort the lines of a call; fixed ones are in every request."""
        fixed, names = self.credentials.fixed, self.credentials.fixed_names
        if not fixed:
            return self.lines.sort(headers)
        own = tuple(line for line in headers if line[0].lower() not in names)
        lines = self.lines.sort(own)
        return evolve(lines, shared=lines.shared + fixed)

    def _are_personal(self, headers: HeaderList) -> bool:
        """Return whether the upstream sees the client's own credentials."""
        shown = any(name.lower() in CREDENTIALS for name, _ in headers)
        return shown and self.credentials.are_the_clients


def _without_own_origin(request: RequestInfo, headers: HeaderList) -> HeaderList:
    """
    Drop what a browser adds to a call of a page that the proxy itself has served.

    Such a page may read all, and wants what any other client would get.
    """
    origins = request.headers.getRawHeaders(b"Origin", [])
    if not origins:
        return headers
    host = request.headers.getRawHeaders(b"Host", [b""])[0]
    if any(origin not in {b"http://" + host, b"https://" + host} for origin in origins):
        return headers
    return tuple(line for line in headers if line[0].lower() not in OF_OWN_PAGES)
