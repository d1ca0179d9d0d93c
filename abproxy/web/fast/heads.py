"""
Plain heads: those that every server on the way reads alike.

Two lengths, both framings, blanks where none belong, folded lines: whatever
could mean one thing here and another elsewhere is not plain, and neither is
what asks for something special.  It is left to Twisted, which knows all of
HTTP/1.1 and refuses what is none (RFC 9112, sections 5 and 6.3).
"""

import re

from attrs import field, frozen
from twisted.web.http_headers import Headers

__all__ = ["LONGEST", "MOST_DIGITS", "RequestHead", "find_length", "read_head"]

LONGEST = 8 << 10
"""A longer head is not plain, in bytes."""

MOST_LINES = 100

MOST_DIGITS = 9
"""A number with more of them is not plain as the length of a body."""

_REQUEST = re.compile(rb"POST (/[\w/.~=&%+?-]*) HTTP/1\.1\r\n", re.ASCII)
_LINE = re.compile(
    rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}): ([!-~](?:[ -~]*[!-~])?)\r\n", re.ASCII
)
_LENGTH = re.compile(
    rb"\r\n[Cc]ontent-[Ll]ength: ([1-9][0-9]{0,%d})\r\n" % (MOST_DIGITS - 1), re.ASCII
)

SPECIAL = frozenset(
    {
        b"expect",
        b"http2-settings",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""Lines of which none is plain."""

ONCE = (b"host", b"content-length", b"content-type")
"""Lines that have to be there exactly once."""


@frozen(kw_only=True)
class RequestHead:
    """The head of a request of which only the length differs from the next."""

    target: bytes
    """Path and query."""

    headers: Headers = field(repr=False)
    """All lines, as Twisted keeps them."""


def find_length(data: bytes, end: int) -> "re.Match[bytes] | None":
    """
    Find the length of the body in *data*, whose head ends at *end*.

    The first group of the match is the number, so that heads can be compared
    without it.
    """
    return _LENGTH.search(data, 0, end)


def read_head(head: bytes) -> RequestHead | None:
    """
    Read a *head* with the blank line at its end; None if it is not plain.

    Source: the grammar of RFC 9112 with all that is optional left out.
    """
    request = _REQUEST.match(head)
    if request is None or len(head) > LONGEST:
        return None
    lines = _lines(head[request.end() : -2])
    if lines is None or not _are_plain(lines):
        return None
    headers = Headers()
    for name, value in lines:
        headers.addRawHeader(name, value)
    return RequestHead(target=request[1], headers=headers)


def _lines(block: bytes) -> list[tuple[bytes, bytes]] | None:
    """Return the lines in *block*; None if they are not all that it holds."""
    found = _LINE.findall(block)
    spelled = b"".join(b"%b: %b\r\n" % line for line in found)
    return found if spelled == block and len(found) <= MOST_LINES else None


def _are_plain(lines: list[tuple[bytes, bytes]]) -> bool:
    names = [name.lower() for name, _ in lines]
    if not SPECIAL.isdisjoint(names) or any(names.count(name) != 1 for name in ONCE):
        return False
    return all(
        value.lower() == b"keep-alive"
        for name, value in lines
        if name.lower() == b"connection"
    )
