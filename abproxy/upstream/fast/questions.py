"""
How a request is written: byte for byte as Twisted's agent writes it.

The heads of batches are nearly always the same but for the length, so each is
made once and remembered.  What must not be in a head Twisted takes out of it,
or refuses, as ever.
"""

from collections.abc import Callable
from functools import lru_cache

from attrs import define, field
from twisted.internet.abstract import isIPv6Address
from twisted.web._newclient import Request
from twisted.web.client import URI

from abproxy.http.failures import as_headers
from abproxy.http.headers import each_line, write_lines
from abproxy.http.messages import HeaderList, UpstreamRequest
from abproxy.upstream.agent import target_of

__all__ = ["RequestWriter", "uri_of"]

HEADS = 256
"""
How many heads are remembered.

They differ by route and by the credentials of clients, and a client alone in
its batch may have lines of its own.
"""

HTTP_PORT = 80
ANNOUNCING = frozenset({b"POST", b"PUT"})
"""Methods that say how long their body is even if there is none."""


def uri_of(url: str) -> URI:
    """
    Take *url* apart, to the letter.

    treq would also write what should not stand in a URL in another way, and
    refuse host names that DNS does not know, like those with an underscore.
    """
    uri: URI = URI.fromBytes(url.encode("ascii"))
    return uri


def _host_line(uri: URI) -> bytes:
    host: bytes = uri.host
    if isIPv6Address(host.decode("ascii")):
        host = b"[%b]" % host
    return host if uri.port == HTTP_PORT else b"%b:%d" % (host, uri.port)


@define(eq=False)
class RequestWriter:
    """Writes requests to one server."""

    base_url: str
    _head: Callable[[bytes, bytes, HeaderList], tuple[bytes, bytes]] = field(
        init=False, repr=False
    )

    def __attrs_post_init__(self) -> None:
        """Begin without any memory."""
        self._head = lru_cache(HEADS)(self._write_head)

    def write(self, outgoing: UpstreamRequest) -> bytes:
        """
        Write head and body of *outgoing*.

        Raises:
            ValueError: it cannot be written as HTTP.
        """
        body, method = outgoing.body, outgoing.method
        start, end = self._head(method, outgoing.path, outgoing.headers)
        if body or method in ANNOUNCING:
            return b"%bContent-Length: %d\r\n%b%b" % (start, len(body), end, body)
        return start + end

    def _write_head(
        self, method: bytes, path: bytes, lines: HeaderList
    ) -> tuple[bytes, bytes]:
        """Write what is before and after the line with the length."""
        url = self.base_url + path.decode("ascii")
        uri = uri_of(url)
        headers = as_headers(lines)
        # What was packed would have to be unpacked.
        headers.removeHeader(b"Accept-Encoding")
        if not headers.hasHeader(b"Host"):
            headers.addRawHeader(b"Host", _host_line(uri))
        target = target_of(url.encode("ascii"))
        Request(method, target, headers, None)  # raises what there is to raise
        written = write_lines(each_line(headers.getAllRawHeaders()))
        return b"%b %b HTTP/1.1\r\n" % (method, target), written + b"\r\n"
