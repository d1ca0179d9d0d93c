"""
From a client's request to a call, or to the decision that it is none.

What is not plainly understood is not refused: it is relayed, and the upstream
says what it thinks of it.
"""

import re
from typing import BinaryIO, cast

from attrs import frozen

from abproxy.dialects.call import Call, Dialect, Lane
from abproxy.headers import Credentials, end_to_end, lane_headers
from abproxy.messages import HeaderList, Outgoing
from abproxy.web.caller import Caller
from abproxy.web.request import DoorRequest

__all__ = ["Receiving"]

_JSON = re.compile(
    rb'application/(?:[\w.+-]+\+)?json[ \t]*(?:;[ \t]*charset="?utf-8"?[ \t]*)?\Z',
    re.IGNORECASE,
)

_PLAIN_TARGET = re.compile(rb"[/\w.-]+(?:\?[\w.~=&%+-]+)?")
"""A target that nobody on the way would spell in another way."""

CREDENTIALS = frozenset({b"authorization", b"x-api-key", b"api-key"})


@frozen(kw_only=True)
class Receiving:
    """How calls are made of requests."""

    credentials: Credentials

    def read(
        self, request: DoorRequest, dialect: Dialect, caller: Caller
    ) -> Call | None:
        """Understand *request* of *caller* as a call, or not."""
        if not _PLAIN_TARGET.fullmatch(request.uri):
            return None
        types = request.requestHeaders.getRawHeaders(b"Content-Type", [])
        if len(types) != 1 or not _JSON.match(types[0]):
            return None
        body = cast("BinaryIO", request.content).read()
        reading = dialect.read(body)
        if reading is None:
            return None
        received = end_to_end(request.requestHeaders.getAllRawHeaders())
        headers = self.credentials.on(received)
        query = request.uri.partition(b"?")[2]
        lane = Lane(
            dialect=dialect,
            path=dialect.path + (b"?" + query if query else b""),
            headers=lane_headers(_without_own_origin(request, headers)),
            options=reading.options,
            is_bulk=caller.is_bulk,
            is_personal=self._are_personal(headers),
        )
        trace = request.trace
        return Call(
            lane=lane,
            items=reading.items,
            alone=Outgoing(
                path=request.uri,
                headers=headers,
                body=body,
                items=len(reading.items.spelled),
                traces=() if trace is None else (trace,),
            ),
            client=caller.client,
            trace=trace,
            name=request.name,
        )

    def _are_personal(self, headers: HeaderList) -> bool:
        """Whether the upstream sees credentials that are the client's own."""
        shown = any(name.lower() in CREDENTIALS for name, _ in headers)
        return shown and self.credentials.are_the_clients


def _without_own_origin(request: DoorRequest, headers: HeaderList) -> HeaderList:
    """Forget that a page asks which came through this door: it may read any answer."""
    if not request.requestHeaders.hasHeader(b"Origin"):
        return headers
    host = request.requestHeaders.getRawHeaders(b"Host", [b""])[0]
    own = {b"http://" + host, b"https://" + host}
    return tuple(
        line for line in headers if line[0].lower() != b"origin" or line[1] not in own
    )
