"""
Whether rows may be in one answer, and what answers say of their model.

Rows of two models are never in one answer.  A server that has not said yet which
model it has is asked for it before that is decided.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from itertools import combinations

from attrs import define, field
from msgspec.structs import replace
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.defer import TimeoutError as TookTooLong
from twisted.internet.interfaces import IReactorTime
from twisted.web.http import OK

from abproxy.dialects.call import Call, PartResult
from abproxy.events import Observer
from abproxy.http.headers import spell
from abproxy.http.messages import HeaderList, Response, Send, UpstreamRequest
from abproxy.upstream.identity import Identity, Source, same_model

__all__ = ["KNOWN_WITHIN_S", "MODEL_SHA", "Joining", "Naming", "sha_line"]

KNOWN_WITHIN_S = 10.0
"""How long an answer waits at most for what a server says of its model, in seconds."""

MODEL_SHA = b"X-Model-Sha"
_VISIBLE = re.compile(rb"[!-~]{1,200}")


@define(kw_only=True, eq=False)
class Joining:
    """Says which rows may be in one answer: those of one model only."""

    clock: IReactorTime = field(repr=False)
    strict: bool = False
    """Whether the same model in other numbers is another one."""

    observer: Observer = field(factory=Observer, repr=False)

    _waiting: set[Deferred[None]] = field(init=False, factory=set, repr=False)
    """Those that wait for what a server says."""

    def may_join(
        self, call: Call, results: Sequence[PartResult]
    ) -> bool | Deferred[bool]:
        """
        Return whether *results* may be in one answer of *call*.

        If a server has not said yet which model it has, it is asked for it first.
        """
        every = {id(each.response): each for each in results}.values()
        sources = {each.response.source for each in every} - {None}
        if _differ_in_width(call, every):
            for each in sources:
                each.ask()
            self.observer.rows_differed()
            return False
        if len(sources) < 2:  # noqa: PLR2004
            return self._are_of_one_model(call, sources)
        unknown = [each.known() for each in sources if each.identity is None]
        if all(each.called for each in unknown):
            return self._are_of_one_model(call, sources)
        return self._when_known(unknown).addCallback(
            lambda _: self._are_of_one_model(call, sources)
        )

    def stop(self) -> None:
        """Wait for nothing any more."""
        for each in list(self._waiting):
            each.cancel()

    def _when_known(self, unknown: Sequence[Deferred[None]]) -> Deferred[None]:
        """Fire when all of *unknown* have fired, or are waited for no longer."""
        known = DeferredList(unknown, consumeErrors=True)

        def stop(waiter: Deferred[None]) -> None:
            waiter.errback(CancelledError())
            known.cancel()

        def over(_: object) -> None:
            self._waiting.discard(waiter)
            if not waiter.called:
                waiter.callback(None)

        waiter: Deferred[None] = Deferred(stop)
        self._waiting.add(waiter)
        known.addTimeout(KNOWN_WITHIN_S, self.clock).addBoth(over)
        return waiter

    def _are_of_one_model(self, call: Call, sources: Collection[Source]) -> bool:
        said = [each.identity for each in sources]
        said += [each.later for each in sources if each.later is not None]
        if len(said) < 2:  # noqa: PLR2004
            return True  # whatever it is
        asked = call.lane_key.model
        are_same = all(
            one is not None
            and other is not None
            and same_model(one, other, strict=self.strict, asked=asked)
            for one, other in combinations(said, 2)
        )
        if not are_same:
            self.observer.rows_differed()
        return are_same


@define(kw_only=True, eq=False)
class Naming:
    """Says in answers of a server which version of its model has computed them."""

    compute: Send = field(repr=False)
    clock: IReactorTime = field(repr=False)

    def send(self, request: UpstreamRequest) -> Deferred[Response]:
        """
        Send *request*; fires with its answer, which names the model.

        It waits for what the server says of itself, if that has not been heard yet.
        """
        return self.compute(request).addCallback(self._name)

    def _name(self, answer: Response) -> Response | Deferred[Response]:
        source: Source | None = answer.source
        if answer.status != OK or source is None:
            return answer
        if source.identity is not None or source.is_over:
            return _named(answer, source)
        known = source.known().addTimeout(KNOWN_WITHIN_S, self.clock)
        known.addErrback(lambda failure: failure.trap(TookTooLong))
        return known.addCallback(lambda _: _named(answer, source))


def sha_line(identity: Identity) -> HeaderList:
    """Return the line that says which version of a model an answer is of, if known."""
    sha = (identity.sha or "").encode()
    return ((MODEL_SHA, sha),) if _VISIBLE.fullmatch(sha) else ()


def _named(answer: Response, source: Source) -> Response:
    """Return *answer* with the line of its model, in the place of any other."""
    if source.identity is None or source.later is not None:
        return answer
    line = sha_line(source.identity)
    others = [each for each in answer.headers if spell(each[0]) != MODEL_SHA]
    return replace(answer, headers=(*others, *line)) if line else answer


def _differ_in_width(call: Call, results: Iterable[PartResult]) -> bool:
    """Return whether embeddings have different lengths, looking at one of each."""
    dialect = call.lane_key.dialect
    widths = {dialect.width(each.rows.raw[0]) for each in results if each.rows}
    return len(widths) > 1
