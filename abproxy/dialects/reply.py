"""
From the results of a call's parts to the one reply that its client gets.

A call that was alone gets the upstream's response untouched.  Where a batch was
shared, the response's headers speak of the batch: what TEI counted for all is
counted again for the call, or left out where it cannot be known.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from abproxy.dialects.call import Call, Dialect, PartResult
from abproxy.errors import ProxyError, Unauthorized
from abproxy.http.messages import HeaderList, Response

__all__ = [
    "CHARACTERS",
    "characters_of",
    "counts_characters",
    "error_reply",
    "lines_of_all",
    "timing_of",
    "write_answer",
    "write_body",
]

CHARACTERS = b"X-Compute-Characters"

OF_THE_BATCH = re.compile(
    rb"etag|last-modified|content-(?:location|range|digest|md5)|repr-digest"
    rb"|set-cookie2?|signature(?:-input)?"
    rb"|(?!.*rate-?limit)(?:.*[-_])?"
    rb"(?:costs?|price|credits?|billed|usage|tokens?|characters|chars|digest|checksum)"
    rb"(?:[-_].*)?",
    re.IGNORECASE | re.DOTALL,
)
"""
The names of header lines that are wrong for one call of a shared batch.

They say what the whole of it cost or counted, or are about its very bytes, or are
for one client.  What is left of a limit is true for all.
"""

CORS = (
    (
        b"Vary",
        b"origin, access-control-request-method, access-control-request-headers",
    ),
    (b"Access-Control-Allow-Origin", b"*"),
)
"""What TEI sends with every answer, so that web pages may read our errors too."""


def write_answer(call: Call, results: Sequence[PartResult]) -> Response:
    """Write the reply for *call* from the *results* of its parts, in order."""
    response = results[0].response
    if results[0].rows is None:
        return response
    return Response(
        status=response.status,
        reason=response.reason,
        headers=(*lines_of_all(response), *_lines_of_one(call, results)),
        body=write_body(call, results),
    )


def write_body(call: Call, results: Sequence[PartResult]) -> bytes:
    """Join the rows of *call*, as the upstream would have written them."""
    parts: list[Any] = [result.rows for result in results]
    return call.lane_key.dialect.write(parts, call.items)


def lines_of_all(response: Response) -> HeaderList:
    """Return the header lines that are right for each call of the batch."""
    return tuple(line for line in response.headers if not _is_of_batch(line[0]))


@lru_cache(1000)
def _is_of_batch(name: bytes) -> bool:
    return OF_THE_BATCH.fullmatch(name) is not None


def counts_characters(response: Response) -> bool:
    """Return whether the upstream has counted the characters of the batch."""
    return any(name.lower() == CHARACTERS.lower() for name, _ in response.headers)


def characters_of(call: Call) -> tuple[bytes, bytes]:
    """Return the line with the number of characters in this call alone."""
    return CHARACTERS, b"%d" % sum(call.items.lengths)


def _lines_of_one(call: Call, results: Sequence[PartResult]) -> HeaderList:
    lines: HeaderList = ()
    if counts_characters(results[0].response):
        lines = (characters_of(call),)
    if any(result.calls for result in results):
        lines = (*lines, timing_of(results))
    return lines


def timing_of(results: Sequence[PartResult]) -> tuple[bytes, bytes]:
    """
    Return the line that says where the time went, and with how many other calls.

    Source: `Server-Timing` of the W3C, with durations in milliseconds.
    """
    result = results[0]
    queue_s, upstream_s, calls = result.queue_s, result.upstream_s, result.calls
    if len(results) > 1:
        queue_s = max(result.queue_s for result in results)
        upstream_s = max(result.upstream_s for result in results)
        calls = max(result.calls for result in results)
    value = b'queue;dur=%.1f, upstream;dur=%.1f, batch;desc="%d calls"'
    return b"Server-Timing", value % (queue_s * 1000, upstream_s * 1000, calls)


def error_reply(error: ProxyError, dialect: Dialect) -> Response:
    """Write an error of ours as a reply, in the JSON of *dialect*."""
    headers = list(CORS)
    if isinstance(error, Unauthorized):
        return Response(status=error.status, reason=b"", headers=CORS, body=b"")
    headers.append((b"Content-Type", b"application/json"))
    if error.allow:
        headers.append((b"Allow", error.allow))
    if error.retry_after_s is not None:
        headers.append((b"Retry-After", b"%d" % error.retry_after_s))
    return Response(
        status=error.status,
        reason=b"",
        headers=tuple(headers),
        body=dialect.error_body(error),
    )
