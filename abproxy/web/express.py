"""
The express way in: plain calls without Klein, and with the same bytes.

A head that was read is remembered by its bytes, without the length of the
body.  Most clients send the same head again, and any other that was seen is in
a table: so it takes a glance to know what a connection's next request is, up to
its items.  What may come in, what becomes of it and what is answered is for the
door to say, as of any other request.
"""

from attrs import define, field, frozen

from abproxy.dialects.call import ParsedBody
from abproxy.tuning import Write, write_later
from abproxy.web.app import Policy, ProxyApp
from abproxy.web.auth import Caller
from abproxy.web.calls import CallHead
from abproxy.web.express_request import FastRequest, Seat
from abproxy.web.plainhead import (
    LONGEST,
    PlainHead,
    find_length,
    match_number,
    read_head,
)
from abproxy.web.replies import Encoder

__all__ = ["FastPath", "Found", "Head"]

MOST_HEADS = 1024
"""So many heads are remembered; then all are forgotten, as some never repeat."""

LARGEST_BODY = 256 << 10
"""The bytes of a larger body have time for the other way."""


@frozen(kw_only=True, eq=False)
class Head:
    """A head that is understood."""

    plain: PlainHead
    envelope: CallHead
    route: str

    policy: Policy
    """By which it was understood."""

    before: bytes
    """What stands before the length of the body."""

    after: bytes
    """What stands between it and the body."""


Found = tuple[Head, int, int]
"""A plain call in what a client has sent: where its body begins, where it ends."""


@define(kw_only=True, eq=False)
class FastPath:
    """What all connections know of heads."""

    door: ProxyApp
    write: Write = write_later
    largest_body: int = LARGEST_BODY
    encoder: Encoder = field(init=False, factory=Encoder)
    _heads: dict[bytes, Head | None] = field(init=False, factory=dict, repr=False)
    _policy: Policy | None = field(init=False, default=None, repr=False)

    def find(self, seat: Seat, data: bytes, last: Head | None = None) -> Found | None:
        """
        Find a plain call, whose head is whole, at the beginning of *data*.

        Args:
            seat: the connection on which it came.
            data: what has arrived; perhaps not the whole body.
            last: the head that came before on this connection.
        """
        found = None
        if last is not None and last.policy is self.door.policy:
            found = _again(last, data)
        if found is None:
            found = self._look_up(seat, data)
        if found is None or found[2] - found[1] > self.largest_body:
            return None
        return found

    def read(self, head: Head, body: bytes) -> ParsedBody | None:
        """
        Read the *body* of a call; if it is none, it has to go the other way.

        So has what we stumble over: it is told there what went wrong.
        """
        try:
            return self.door.read(head.envelope, body)
        except Exception:  # noqa: BLE001  it will happen there again
            return None

    def who(self, seat: Seat, head: Head) -> Caller:
        """Say who calls with this *head* from a *seat*."""
        return self.door.policy.clients.identify(self._request(seat, head.plain))

    def begin(self, seat: Seat, head: Head) -> FastRequest:
        """Begin to owe an answer to a call with this *head*."""
        request = self._request(seat, head.plain, head.route)
        seat.site.begin(request)
        return request

    def _look_up(self, seat: Seat, data: bytes) -> Found | None:
        """Find a call whose head has come before, on whatever connection."""
        starts = data.find(b"\r\n\r\n", 0, LONGEST) + 4
        length = find_length(data, starts)
        if length is None:
            return None
        first, after = length.span(1)
        head = self._head(seat, data[:first], data[after:starts])
        ends = starts + int(data[first:after])
        return (head, starts, ends) if head is not None else None

    def _head(self, seat: Seat, before: bytes, after: bytes) -> Head | None:
        if self._policy is not self.door.policy or len(self._heads) >= MOST_HEADS:
            self._heads.clear()
            self._policy = self.door.policy
        # Heads are compared as if every body were one byte long.
        written = before + b"1" + after
        if written not in self._heads:
            self._heads[written] = self._understand(seat, before, after)
        return self._heads[written]

    def _understand(self, seat: Seat, before: bytes, after: bytes) -> Head | None:
        plain = read_head(before + b"1" + after)
        if plain is None:
            return None
        request = self._request(seat, plain)
        policy = self.door.policy
        envelope = policy.reader.open(request, policy.clients.identify(request))
        if envelope is None or not policy.keys.recognize(request):
            return None
        return Head(
            plain=plain,
            envelope=envelope,
            route=envelope.dialect.path.decode(),
            policy=policy,
            before=before,
            after=after,
        )

    def _request(
        self, seat: Seat, plain: PlainHead, route: str | None = None
    ) -> FastRequest:
        return FastRequest(
            seat=seat, plain=plain, door=self.door, encoder=self.encoder, route=route
        )


def _again(head: Head, data: bytes) -> Found | None:
    """Find *head* again at the beginning of *data*, with whatever length."""
    if not data.startswith(head.before):
        return None
    length = match_number(data, len(head.before))
    if length is None or not data.startswith(head.after, length.end()):
        return None
    starts = length.end() + len(head.after)
    return head, starts, starts + int(length[0])
