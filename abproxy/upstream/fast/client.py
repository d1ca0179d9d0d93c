"""
Requests on connections of our own, as they are written: a second client beside treq.

It sends the same bytes, returns the same responses and fails in the same words,
in a fraction of the time.
"""

from typing import Any

from attrs import define, field
from twisted.internet.abstract import isIPv6Address
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.web._newclient import Request
from twisted.web.client import URI

from abproxy.http.headers import as_headers, each_line, write_lines
from abproxy.http.messages import HeaderList, Response, UpstreamRequest
from abproxy.tuning import Write, write_now
from abproxy.upstream.agent import target_of
from abproxy.upstream.endpoints import uri_of, without_zone
from abproxy.upstream.fast.connection import (
    Connection,
    ConnectionPool,
    Connections,
    Exchange,
)

__all__ = ["FastClient", "RequestWriter"]

HEADS = 256
"""
How many heads are kept.

They differ by route and by the credentials of clients, and a client alone in
its batch may have lines of its own.
"""

LONGEST_HEAD = 8 << 10
"""A longer head is not kept: clients decide how long theirs are."""

PORTS = {b"http": 80, b"https": 443}
"""Of each scheme the one that is not named."""

ANNOUNCING = frozenset({b"POST", b"PUT"})
"""Methods that say how long their body is even if there is none."""


def _host_line(uri: URI) -> bytes:
    host = without_zone(uri.host)
    if isIPv6Address(host.decode("ascii")):
        host = b"[%b]" % host
    return host if uri.port == PORTS[uri.scheme] else b"%b:%d" % (host, uri.port)


@define(eq=False)
class RequestWriter:
    """
    Writes requests to one server, byte for byte as Twisted's agent does.

    The heads of batches are nearly always the same but for the length, so each is
    made once and kept.  What must not be in a head Twisted takes out of it, or
    refuses, as ever.
    """

    base_url: str
    _heads: dict[tuple[bytes, bytes, HeaderList], tuple[bytes, bytes]] = field(
        init=False, factory=dict, repr=False
    )
    """What is before and after the line with the length, by what is in it."""

    def write(self, request: UpstreamRequest) -> bytes:
        """
        Return head and body of *request*.

        Raises:
            ValueError: it cannot be written as HTTP.
        """
        body, method = request.body, request.method
        key = method, request.path, request.headers
        head = self._heads.get(key)
        if head is None:
            head = self._write_head(*key)
            if len(self._heads) >= HEADS:
                self._heads.clear()
            if len(head[0]) + len(head[1]) <= LONGEST_HEAD:
                self._heads[key] = head
        start, end = head
        if body or method in ANNOUNCING:
            return b"%bContent-Length: %d\r\n%b%b" % (start, len(body), end, body)
        return start + end

    def _write_head(
        self, method: bytes, path: bytes, lines: HeaderList
    ) -> tuple[bytes, bytes]:
        """Return what is before and after the line with the length."""
        url = self.base_url + path.decode("ascii")
        uri = uri_of(url.encode("ascii"))
        headers = as_headers(lines)
        # What was packed would have to be unpacked.
        headers.removeHeader(b"Accept-Encoding")
        if not headers.hasHeader(b"Host"):
            headers.addRawHeader(b"Host", _host_line(uri))
        target = target_of(url.encode("ascii"))
        Request(method, target, headers, None)  # raises what there is to raise
        written = write_lines(each_line(headers.getAllRawHeaders()))
        return b"%b %b HTTP/1.1\r\n" % (method, target), written + b"\r\n"


@define(kw_only=True, eq=False)
class FastClient:
    """Sends requests on connections of its own."""

    base_url: str
    endpoint: IStreamClientEndpoint = field(repr=False)
    pool: ConnectionPool
    max_answer_bytes: int
    write: Write = field(default=write_now, repr=False)
    _writer: RequestWriter = field(init=False, repr=False)
    _connections: Connections = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._writer = RequestWriter(self.base_url)
        self._connections = Connections(self.pool, self.write, self.max_answer_bytes)

    def send(self, request: UpstreamRequest) -> Deferred[Response]:
        """
        Send *request* and receive the whole response.

        Cancelled, it fails with that and nothing else.
        """
        try:
            written = self._writer.write(request)
        except ValueError as error:
            return fail(error)
        exchange = Exchange(request.method, written)
        waiter = exchange.waiter = Deferred(exchange.cancel)
        connection = self.pool.take()
        if connection is None:
            self._connect(exchange)
        else:
            if not request.body:
                # As Twisted does: the connection was perhaps just closing.
                exchange.again = self._connect
            connection.send(exchange)
        return waiter

    def _connect(self, exchange: Exchange) -> None:
        connecting: Deferred[Any] = self.endpoint.connect(self._connections)
        exchange.stop = connecting.cancel
        connecting.addCallback(Connection.send, exchange)
        connecting.addErrback(exchange.tell)
