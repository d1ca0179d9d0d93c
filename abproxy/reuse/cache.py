"""
What both caches do alike: which calls they answer, and which rows they keep.

Each item is looked up by itself: a call of a hundred of which three are not known
asks for three.  Failures are never kept, nor what is sent alone.
"""

from collections.abc import Callable
from typing import ClassVar

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.python.failure import Failure
from twisted.web.http import OK

from abproxy.dialects.call import BadAnswer, Call, MayJoin, PartResult, may_join_all
from abproxy.events import Observer
from abproxy.http.messages import Response
from abproxy.reuse.entry import Keys, entries_of
from abproxy.reuse.rows import Outcome, Submit, has_rows, joined, only, rows_of, span

__all__ = ["Cache"]


def _certain() -> bool:
    return True


@define(kw_only=True, eq=False)
class Cache:
    """Answers with rows that were computed before, and lets the rest be computed."""

    compute: Submit = field(repr=False)
    keys: Keys
    ttl_s: float
    """For how long a row is kept."""

    is_certain: Callable[[], bool] = field(default=_certain, repr=False)
    """Whether the upstream is known to have the model whose rows are kept."""

    may_join: MayJoin = field(default=may_join_all, repr=False)
    observer: Observer = field(factory=Observer, repr=False)

    source: ClassVar[str]
    """What metrics and traces call it."""

    def submit(self, call: Call) -> Deferred[list[PartResult]]:
        """
        Compute what is not known of *call*; fires with its results.

        Raises:
            Overloaded: there is no room for what is to be computed.
        """
        if call.lane_key.serial or not call.may_be_kept:
            return self.compute(call)
        if not call.may_be_known or not self.is_certain():
            return self._compute_all(call)
        return self._answer(call)

    def _answer(self, call: Call) -> Deferred[list[PartResult]]:
        """Look *call* up, and fire with its results."""
        raise NotImplementedError

    def _put(self, entries: dict[bytes, bytes]) -> None:
        """Keep *entries*, by their keys."""
        raise NotImplementedError

    def _compute_all(self, call: Call) -> Deferred[list[PartResult]]:
        return self._compute(call)

    def _compute(self, call: Call) -> Deferred[list[PartResult]]:
        keys = self.keys
        return self.compute(call).addCallback(self._keep, call, keys)

    def _complete(
        self, call: Call, known: dict[bytes, PartResult]
    ) -> Deferred[list[PartResult]]:
        """
        Compute the items of *call* that are not among those *known*.

        If that fails, the whole call is submitted as its client sent it: what is said
        of some of its items need not be the answer to all of them.  The same
        if what was known and what was computed may not join, as the model has changed.

        Raises:
            Overloaded: there is no room for it.
        """
        items = call.items.raw
        places = [place for place, item in enumerate(items) if item not in known]
        self.observer.reused(self.source, len(items) - len(places), call.trace)
        if not places:
            return succeed(span(call, known))
        rest = only(call, places)

        def answered(results: list[PartResult]) -> Outcome:
            if not has_rows(results):
                return self._compute(call)
            try:
                rows = rows_of(rest, results)
            except BadAnswer:
                return self._compute(call)
            found = known | dict(zip(rest.items.raw, rows, strict=True))
            return joined(call, span(call, found), self.may_join, self._compute)

        def failed(failure: Failure) -> Outcome:
            return failure if failure.check(CancelledError) else self._compute(call)

        return self._compute(rest).addCallbacks(answered, failed)

    def _keep(
        self, results: list[PartResult], call: Call, keys: Keys
    ) -> list[PartResult]:
        """
        Return the *results* of *call*; keep their rows once their model is known.

        The *keys* are those in force when it was submitted.
        """
        if not has_rows(results):
            return results

        def decided(are_of_model: bool) -> None:  # noqa: FBT001
            if are_of_model and self.keys is keys:
                self._put(entries_of(call, results, keys))

        of_model = Response(
            status=OK, reason=b"", headers=(), body=b"", source=keys.source
        )
        answer = self.may_join(call, [*results, PartResult(response=of_model)])
        if isinstance(answer, bool):
            decided(answer)
        else:
            answer.addCallback(decided).addErrback(lambda why: why.trap(CancelledError))
        return results
