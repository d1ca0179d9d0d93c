"""
The express way in: plain calls without Klein, and with the same bytes.

A head that was read is remembered by its bytes, without the length of the
body.  So it takes a look into a table to know what a connection's next request
is, up to its items.  What may come in, what becomes of it and what is answered
is for the door to say, as of any other request.
"""

from attrs import define, field, frozen

from abproxy.dialects.call import Reading
from abproxy.dialects.routes import dialect_of
from abproxy.web.app import Door
from abproxy.web.caller import Caller
from abproxy.web.encoding import Encoder
from abproxy.web.express_request import ExpressRequest, Seat
from abproxy.web.plainhead import LONGEST, PlainHead, find_length, read_head
from abproxy.web.receiving import Envelope, Receiving
from abproxy.writing import Write, write_later

__all__ = ["Express", "Found", "Head"]

MOST_HEADS = 1024
"""So many heads are remembered; then all are forgotten, as some never repeat."""

LARGEST_BODY = 256 << 10
"""The bytes of a larger body have time for the other way."""


@frozen(kw_only=True, eq=False)
class Head:
    """A head that is understood."""

    plain: PlainHead
    envelope: Envelope


@frozen(kw_only=True, eq=False)
class Found:
    """A plain call in what a client has sent."""

    head: Head

    starts: int
    """Where its body begins."""

    ends: int
    """Where its body ends; perhaps not all of it is here."""


@define(kw_only=True, eq=False)
class Express:
    """What all connections know of heads."""

    door: Door
    write: Write = write_later
    encoder: Encoder = field(init=False, factory=Encoder)
    _heads: dict[bytes, Head | None] = field(init=False, factory=dict, repr=False)
    _receiving: Receiving | None = field(init=False, default=None, repr=False)
    """By whose rules heads were understood; new settings bring new ones."""

    def find(self, seat: Seat, data: bytes) -> Found | None:
        """Find a plain call, whose head is whole, at the beginning of *data*."""
        starts = data.find(b"\r\n\r\n", 0, LONGEST) + 4
        length = find_length(data, starts)
        if length is None:
            return None
        first, after = length.span(1)
        size = int(data[first:after])
        # Heads are compared as if every body were one byte long.
        head = self._head(seat, data[:first] + b"1" + data[after:starts])
        if head is None or size > min(seat.site.max_body_bytes, LARGEST_BODY):
            return None
        return Found(head=head, starts=starts, ends=starts + size)

    def read(self, head: Head, body: bytes) -> Reading | None:
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
        return self.door.callers.who(self._request(seat, head.plain))

    def begin(self, seat: Seat, head: Head) -> ExpressRequest:
        """Begin to owe an answer to a call with this *head*."""
        request = self._request(seat, head.plain)
        request.route = head.envelope.dialect.path.decode()
        seat.site.begin(request)
        return request

    def _head(self, seat: Seat, written: bytes) -> Head | None:
        if self._receiving is not self.door.receiving or len(self._heads) >= MOST_HEADS:
            self._heads.clear()
            self._receiving = self.door.receiving
        if written not in self._heads:
            self._heads[written] = self._understand(seat, written)
        head = self._heads[written]
        return head if head is not None and self._means_the_same(head) else None

    def _means_the_same(self, head: Head) -> bool:
        """Whether the path does what it did: the model's task may change."""
        task = self.door.task()
        return dialect_of(head.plain.target, task) is head.envelope.dialect

    def _understand(self, seat: Seat, written: bytes) -> Head | None:
        plain = read_head(written)
        if plain is None:
            return None
        request = self._request(seat, plain)
        envelope = self.door.open(request, self.door.callers.who(request))
        if envelope is None or not self.door.keys.fit(request):
            return None
        return Head(plain=plain, envelope=envelope)

    def _request(self, seat: Seat, plain: PlainHead) -> ExpressRequest:
        return ExpressRequest(
            seat=seat, plain=plain, door=self.door, encoder=self.encoder
        )
