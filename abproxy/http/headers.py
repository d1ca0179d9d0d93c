"""Header lines: how they are written, and which of them are passed on."""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from random import getrandbits

from attrs import field, frozen
from msgspec.structs import replace
from twisted.web.http_headers import Headers

from abproxy.http.messages import HeaderList, Response

__all__ = [
    "Credentials",
    "as_headers",
    "each_line",
    "end_to_end",
    "group",
    "lead_back",
    "new_request_id",
    "read_cache_control",
    "read_request_id",
    "spell",
    "with_request_id",
    "write_lines",
]

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""Lines about one connection only (RFC 9110, section 7.6.1)."""

FRAMING = frozenset({b"content-length", b"expect", b"host"})
"""Lines that the sender of a message writes anew."""

OF_ONE_HOP = HOP_BY_HOP | FRAMING

Raw = Iterable[tuple[bytes, Sequence[bytes]]]
"""Names with all their values, as Twisted's `Headers.getAllRawHeaders` gives them."""

_NEW = re.compile(rb"no-cache|no-store|max-age=0+", re.IGNORECASE)
_UNKEPT = re.compile(rb"no-store", re.IGNORECASE)
"""What clients say of answers that were given before (RFC 9111)."""


def as_headers(lines: HeaderList) -> Headers:
    """Return *lines* as Twisted's headers."""
    headers = Headers()
    for name, value in lines:
        headers.addRawHeader(name, value)
    return headers


def each_line(raw: Raw) -> HeaderList:
    """Return the lines in *raw*, a name once for each of its values."""
    return tuple([(name, value) for name, values in raw for value in values])


def group(lines: Sequence[tuple[bytes, bytes]]) -> HeaderList:
    """Return *lines* with those of one name together, as Twisted has them."""
    return tuple(line for name in dict(lines) for line in lines if line[0] == name)


def write_lines(lines: HeaderList) -> bytes:
    """Write *lines* as they stand in a head."""
    return b"".join([b"%b: %b\r\n" % line for line in lines])


def end_to_end(raw: Raw) -> HeaderList:
    """Return the lines that are not about one connection only."""
    lines = each_line(raw)
    listed = {
        token.strip().lower()
        for name, value in lines
        if name.lower() == b"connection"
        for token in value.split(b",")
    }
    left_out = OF_ONE_HOP | listed if listed else OF_ONE_HOP
    return tuple(line for line in lines if line[0].lower() not in left_out)


@lru_cache(1000)
def spell(name: bytes) -> bytes:
    """Return the *name* of a line as Twisted spells it."""
    [(spelled, _)] = Headers({name: [b""]}).getAllRawHeaders()
    return bytes(spelled)


@frozen(kw_only=True)
class Credentials:
    """The credentials that the upstream is sent, in place of those of clients."""

    key: str | None = field(default=None, repr=False)
    """Sent for all clients, in the place of what they send."""

    are_for_us: bool = False
    """Whether the keys that clients send are checked here, and not sent on."""

    fixed: HeaderList = field(default=(), repr=False)
    """Lines that stand in every request, in the place of what clients send."""

    @property
    def are_the_clients(self) -> bool:
        """Return whether the upstream sees the clients' own credentials."""
        is_fixed = b"authorization" in self.fixed_names
        return self.key is None and not self.are_for_us and not is_fixed

    @property
    def fixed_names(self) -> frozenset[bytes]:
        """Return the names of the fixed lines, in lower case."""
        return frozenset(name.lower() for name, _ in self.fixed)

    @property
    def without_key(self) -> "Credentials":
        """Return those for a client without a key: the fixed host alone."""
        host = tuple(line for line in self.fixed if line[0].lower() == b"host")
        return Credentials(are_for_us=True, fixed=host)

    def on(self, headers: HeaderList) -> HeaderList:
        """Return *headers* with the right credentials, and the fixed lines."""
        left_out = self.fixed_names
        if not self.are_the_clients:
            left_out |= {b"authorization"}
        lines = tuple(line for line in headers if line[0].lower() not in left_out)
        if self.key is not None and b"authorization" not in self.fixed_names:
            lines += ((b"Authorization", b"Bearer " + self.key.encode()),)
        return lines + self.fixed


# Where an answer points to

LOCATIONS = frozenset({b"Location", b"Content-Location"})

_AUTHORITY = re.compile(rb"(?:(https?):)?//([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL)
_PORTS = {b"http": b"80", b"https": b"443"}


def lead_back(lines: HeaderList, base_url: str, prefix: bytes = b"") -> HeaderList:
    """
    Return *lines* without the upstream's own address in what leads to another page.

    A server makes it of the `Host` that it sees, which is the upstream's: no client
    knows that name.  A path alone leads to where the client asked, whatever that
    is called and whether with TLS (RFC 9110, section 10.2.2).

    Args:
        lines: of an answer of the upstream.
        base_url: where the upstream is, perhaps with a path, which no client sees.
        prefix: what the client's own path began with, which the upstream did not see.
    """
    return tuple(
        (name, _path_of(value, base_url, prefix) if spell(name) in LOCATIONS else value)
        for name, value in lines
    )


def _path_of(target: bytes, base_url: str, asked_below: bytes) -> bytes:
    scheme, authority, prefix = _parts_of(base_url.encode())
    found = _AUTHORITY.fullmatch(target)
    path = target
    if found is not None:
        itself = (found[1] or scheme).lower(), found[2]
        if _address_of(*itself) != _address_of(scheme, authority):
            return target
        path = found[3]
    elif not target.startswith(b"/"):
        return target
    inner = path.removeprefix(prefix)
    if not path.startswith(prefix) or inner[:1] not in _AFTER_PATH:
        return target
    if not inner.startswith(b"/"):
        inner = b"/" + inner
    # Two slashes would begin the name of a host.
    return asked_below + (b"/." + inner if inner[1:2] in _SLASHES else inner)


_AFTER_PATH = (b"", b"/", b"?", b"#")
_SLASHES = (b"/", b"\\")


def _parts_of(url: bytes) -> tuple[bytes, bytes, bytes]:
    found = _AUTHORITY.fullmatch(url)
    if found is None:
        raise ValueError("no URL")
    return found[1].lower(), found[2], found[3]


def _address_of(scheme: bytes, authority: bytes) -> tuple[bytes, bytes]:
    """Return host and port."""
    host, port = _PORT.fullmatch(authority.lower()).groups()  # type: ignore[union-attr]
    return host, port or _PORTS[scheme]


_PORT = re.compile(rb"(.*?)(?::([0-9]*))?", re.DOTALL)


# Request ids, which stand in the log and in errors of our own.  An answer of the
# upstream stays as it is, and so does the line on its way upstream.

REQUEST_ID = b"X-Request-Id"

_ID = re.compile(rb"[!-~]{1,128}")
"""Visible ASCII: nothing that could end a line of a log, or fill it."""


def read_request_id(headers: Headers) -> bytes:
    """Return the id that a client sent in *headers*, or a new one."""
    sent = headers.getRawHeaders(REQUEST_ID)
    return sent[0] if sent and _ID.fullmatch(sent[0]) else new_request_id()


def new_request_id() -> bytes:
    """Return an id that no request has had."""
    return b"%016x" % getrandbits(64)  # an id, and no secret


def with_request_id(response: Response, request_id: bytes) -> Response:
    """Return a *response* of our own with the id of its request."""
    return replace(response, headers=(*response.headers, (REQUEST_ID, request_id)))


def read_cache_control(headers: HeaderList) -> tuple[bool, bool]:
    """
    Return whether rows that are known will do, and whether new ones may be kept.

    `Pragma: no-cache` is the same as `Cache-Control: no-cache`, which clients of
    HTTP/1.0 do not have.
    """
    words = [
        word.strip()
        for name, value in headers
        if name.lower() in {b"cache-control", b"pragma"}
        for word in value.split(b",")
    ]
    if not words:
        return True, True
    known = not any(map(_NEW.fullmatch, words))
    return known, not any(map(_UNKEPT.fullmatch, words))
