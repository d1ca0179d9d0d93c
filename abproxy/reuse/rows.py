"""
The rows of single items: taken out of one answer, and put together for another call.

A row is passed on as the upstream wrote it.  A call of which some rows are there
already asks for the others only, in a request that names just these.
"""

from collections.abc import Callable, Mapping, Sequence

from msgspec.structs import replace
from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure
from twisted.web.http import OK

from abproxy.dialects.call import BadAnswer, Call, Items, MayJoin, PartResult, Rows

__all__ = ["Outcome", "Submit", "has_rows", "joined", "only", "rows_of", "span"]

Submit = Callable[[Call], Deferred[list[PartResult]]]
"""Fire with the results of a call's parts, as `BatchCollector.submit` does."""

Outcome = list[PartResult] | Deferred[list[PartResult]] | Failure


def has_rows(results: Sequence[PartResult]) -> bool:
    """Return whether *results* of a call hold a row for each of its items."""
    return results[0].rows is not None or results[0].response.status == OK


def rows_of(call: Call, results: Sequence[PartResult]) -> list[PartResult]:
    """
    Return a result for each item of *call*, of which the *results* are good.

    What the upstream counted for several items is divided among them by length.

    Raises:
        BadAnswer: the rows cannot be told from each other.
    """
    first, items, dialect = results[0], call.items, call.lane_key.dialect
    if len(items.raw) == 1 and first.rows is not None:
        return [first]
    head = replace(first.response, body=b"")
    if first.rows is not None:
        body = dialect.write([_rows(each) for each in results], items)
    elif items.is_list:
        body = first.response.body
    elif not first.response.body.startswith(b"["):
        raise BadAnswer("the answer to one bare input is no row")
    else:
        bare = Rows(raw=(first.response.body,))
        return [replace(first, response=head, rows=bare)]
    rows = dialect.split(body, [[length] for length in items.lengths])
    return [replace(first, response=head, rows=own) for own in rows]


def _rows(result: PartResult) -> Rows:
    if result.rows is None:
        raise BadAnswer("a part of a large call has no rows")
    return result.rows


def only(call: Call, places: Sequence[int]) -> Call:
    """Return a call for the items at *places* of *call*, in a request of our own."""
    raw = [call.items.raw[place] for place in places]
    lengths = [call.items.lengths[place] for place in places]
    traces = () if call.trace is None else (call.trace,)
    return replace(
        call,
        items=Items(raw=raw, lengths=lengths),
        alone=call.lane_key.request(raw, traces),
    )


def span(call: Call, rows: Mapping[bytes, PartResult]) -> list[PartResult]:
    """Return the results of *call*, each of whose items has one of *rows*."""
    return [rows[item] for item in call.items.raw]


def joined(
    call: Call, results: list[PartResult], may_join: MayJoin, submit: Submit
) -> Deferred[list[PartResult]]:
    """Fire with *results* of a *call* if they may join, and if not submit it."""
    answer = may_join(call, results)
    if isinstance(answer, bool):
        return succeed(results) if answer else submit(call)
    return answer.addCallback(lambda yes: results if yes else submit(call))
