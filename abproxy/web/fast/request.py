"""
Calls that are answered without Klein, with the same bytes.

A head that was read is remembered by its bytes, without the length of the
body.  Most clients send the same head again, and any other that was seen is in
a table: so one comparison tells what a connection's next request is, up to its
items.  What may come in, what becomes of it and what is answered is decided by
the ProxyApp, as for any other request.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from attrs import define, evolve, field, frozen
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers

from abproxy.dialects.call import Call, ParsedBody, PartResult
from abproxy.errors import ModelNotFound
from abproxy.events import RequestInfo
from abproxy.tuning import Write, write_later
from abproxy.web.app import Policy, ProxyApp
from abproxy.web.auth import Caller
from abproxy.web.calls import CallHead
from abproxy.web.fast.heads import LONGEST, MOST_DIGITS, find_length, read_head
from abproxy.web.models import Served
from abproxy.web.replies import Encoder, Written, encode
from abproxy.web.request import without_prefix
from abproxy.web.server import ProxySite

__all__ = ["FastPath", "FastRequest", "Found", "KnownHead"]

MOST_HEADS = 1024
"""So many heads are remembered; then all are forgotten, as some never repeat."""

MOST_BYTES = 2 << 20
"""How long all of them may be together, as each is as long as its client likes."""


@frozen(kw_only=True, eq=False)
class KnownHead:
    """A head that was read, and is that of a call."""

    target: bytes
    headers: Headers = field(repr=False)
    served: Served
    call_head: CallHead
    route: str

    of_models: "dict[Served, KnownHead] | None" = field(default=None, repr=False)
    """The same head for each model that bodies name; None if bodies need name none."""

    below: bytes = b""
    """What the target has begun with, where that names the model."""

    policy: Policy
    """The one by which it was read; another may take it for something else."""

    has_deadline: bool
    """Whether its answer has to come within a time, which begins with the head."""

    before: bytes = field(repr=False)
    """What stands before the length of the body."""

    after: bytes = field(repr=False)
    """What stands between it and the body."""


Found = tuple[KnownHead, int, int]
"""A plain call in what a client has sent: where its body begins, where it ends."""


@define(kw_only=True, eq=False)
class FastPath:
    """The heads that are known, for all connections."""

    app: ProxyApp
    write: Write = write_later
    prefix: bytes = b""
    """What paths may begin with, which is no part of them."""

    encoder: Encoder = field(init=False, factory=Encoder)
    _heads: dict[bytes, KnownHead | None] = field(init=False, factory=dict, repr=False)
    _bytes: int = field(init=False, default=0)
    _policy: Policy | None = field(init=False, default=None, repr=False)

    def find(self, data: bytes, last: KnownHead | None = None) -> Found | None:
        """
        Find a plain call, whose head is whole, at the beginning of *data*.

        Args:
            data: what has arrived; perhaps not the whole body.
            last: the head that came before on this connection.
        """
        if (
            last is not None
            and last.policy is self.app.policy
            and data.startswith(last.before)
        ):
            at = len(last.before)
            ends = data.find(b"\r", at, at + MOST_DIGITS + 1)
            number, starts = data[at:ends], ends + len(last.after)
            is_length = number.isdigit() and not number.startswith(b"0")
            if is_length and data.startswith(last.after, ends):
                return last, starts, starts + int(number)
        return self._look_up(data)

    def _look_up(self, data: bytes) -> Found | None:
        """Find a call whose head has come before, on whatever connection."""
        starts = data.find(b"\r\n\r\n", 0, LONGEST) + 4
        length = find_length(data, starts)
        if length is None:
            return None
        first, after = length.span(1)
        head = self._head(data[:first], data[after:starts])
        ends = starts + int(data[first:after])
        return (head, starts, ends) if head is not None else None

    def _head(self, before: bytes, after: bytes) -> KnownHead | None:
        is_full = len(self._heads) >= MOST_HEADS or self._bytes >= MOST_BYTES
        if is_full or self._policy is not self.app.policy:
            self._heads.clear()
            self._bytes, self._policy = 0, self.app.policy
        # Heads are compared as if every body were one byte long.
        written = before + b"1" + after
        if written not in self._heads:
            self._heads[written] = self._read(before, after)
            self._bytes += len(written)
        return self._heads[written]

    def _read(self, before: bytes, after: bytes) -> KnownHead | None:
        head = read_head(before + b"1" + after)
        if head is None:
            return None
        policy, models = self.app.policy, self.app.policy.models
        try:
            way = models.by_path(without_prefix(head.target, self.prefix))
        except ModelNotFound:
            return None
        served = way.served or models.default
        request = RequestInfo(
            method=FastRequest.METHOD, target=way.target, headers=head.headers
        )
        caller = policy.clients.identify(request)
        call_head = served.reader.open(request, caller)
        if call_head is None or not policy.keys.recognize(request):
            return None
        return KnownHead(
            target=way.target,
            headers=head.headers,
            served=served,
            call_head=call_head,
            of_models={} if models.named else None,
            below=way.prefix,
            route=call_head.dialect.path.decode(),
            policy=policy,
            has_deadline=caller.deadline_s is not None,
            before=before,
            after=after,
        )

    def choose(self, known: KnownHead, body: bytes) -> tuple[KnownHead, bytes]:
        """
        Return the *known* head for the model that *body* names, and its own body.

        Raises:
            LookupError: there is no such model, or it has no such route.
        """
        way = known.served if known.below else None
        served, body = known.policy.models.by_body(body, way)
        if served is known.served:
            return known, body
        heads = known.of_models or {}
        if served not in heads:
            heads[served] = self._for(known, served)
        return heads[served], body

    def _for(self, known: KnownHead, served: Served) -> KnownHead:
        request = RequestInfo(
            method=FastRequest.METHOD, target=known.target, headers=known.headers
        )
        caller = known.policy.clients.identify(request)
        call_head = served.reader.open(request, caller)
        if call_head is None:
            raise LookupError("it has no such route")
        route = call_head.dialect.path.decode()
        return evolve(known, served=served, call_head=call_head, route=route)


class FastRequest(RequestInfo, kw_only=True, eq=False):
    """A call on the fast path, from its head to its answer."""

    METHOD: ClassVar[bytes] = b"POST"

    fast_path: FastPath
    site: ProxySite

    answer: "Callable[[FastRequest, bytes], None]"
    """Sends the bytes of the answer, and ends the request."""

    _results: Deferred[Any] | None = None
    _is_cancelled: bool = False

    def submit(
        self, head: KnownHead, parsed: ParsedBody, body: bytes, caller: Caller
    ) -> None:
        """Submit the call; its answer may be sent before this returns."""
        call = head.call_head.call(parsed, body, self, caller)
        app = self.fast_path.app
        try:
            results: Deferred[Any] = app.submit(head.served, call, caller)
        except Exception:  # noqa: BLE001  whatever it is, the client is told
            self._done(Failure(), call)
            return
        self._results = results
        # One callback instead of several: this is done for each call.
        results.addBoth(self._done, call)

    def cancel(self) -> None:
        """Cancel the call; the client disconnected."""
        self._is_cancelled = True
        self.site.end(self, gone=True)
        if self._results is not None:
            self._results.cancel()

    def _done(self, outcome: Sequence[PartResult] | Failure, call: Call) -> None:
        if self._is_cancelled:
            return
        closes = self.site.is_draining
        if isinstance(outcome, Failure):
            written, self.size = self._error(outcome, closes=closes)
        else:
            try:
                first = outcome[0]
                self.status = first.response.status
                if first.upstream_s and len(outcome) == 1:
                    self.elsewhere_s = first.queue_s + first.upstream_s
                encoder = self.fast_path.encoder
                written, self.size = encoder.answer(call, outcome, closes=closes)
            except Exception:  # noqa: BLE001  whatever it is, the client is told
                written, self.size = self._error(Failure(), closes=closes)
        self.answer(self, written)

    def _error(self, failure: Failure, *, closes: bool) -> Written:
        response = self.fast_path.app.explain(failure, self)
        self.status = response.status
        return encode(response, closes=closes)
