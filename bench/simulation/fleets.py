"""
Several servers with an address each, before which abproxy chooses for each request.

The choice is the real one: a `Fleet` of `Upstream` objects that send to modelled
servers instead of over sockets.  Other ways reach them by a balancer that gives each
server its turn.
"""

from collections.abc import Sequence
from random import Random
from typing import cast

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.web.client import HTTPConnectionPool
from twisted.web.iweb import IAgent

from abproxy.http.headers import Credentials
from abproxy.http.messages import Response, Send, UpstreamRequest
from abproxy.upstream.client import Upstream
from abproxy.upstream.fast.connection import ConnectionPool
from abproxy.upstream.fleet.fleet import Fleet
from bench.simulation.clock import VirtualClock
from bench.simulation.servers import Server

__all__ = ["Several", "choosing"]

TIMEOUT_S = 600.0
"""For how long a request may be under way: no run takes that long."""


@define(kw_only=True, eq=False)
class Several:
    """Servers behind a balancer that gives each its turn."""

    clock: VirtualClock
    servers: Sequence[Server]
    _next: int = field(default=0, init=False)

    @property
    def requests(self) -> int:
        """Return how many were let in."""
        return sum(server.requests for server in self.servers)

    @property
    def items(self) -> int:
        """Return how many were in these."""
        return sum(server.items for server in self.servers)

    def send(self, request: UpstreamRequest) -> Deferred[Response]:
        """Hand it to the server whose turn it is."""
        server = self.servers[self._next]
        self._next = (self._next + 1) % len(self.servers)
        return server.send(request)


def choosing(several: Several, permits: int) -> Send:
    """Return what sends each request to the one of *several* that is soonest."""
    clock = several.clock
    fleet = Fleet(
        clock=clock,
        timeout_s=TIMEOUT_S,
        credentials=Credentials(),
        permits_of=lambda _info: permits,
        random=Random(1),  # noqa: S311  a game
    )
    for at, server in enumerate(several.servers):
        upstream = Upstream(
            base_url=f"http://{at}",
            credentials=Credentials(),
            clock=clock,
            timeout_s=TIMEOUT_S,
            transport=server.send,
            # Nothing is sent over connections, and nothing is relayed.
            pool=ConnectionPool(clock, 0),
            agent=cast("IAgent", None),
            agent_pool=cast("HTTPConnectionPool", None),
        )
        fleet.add(upstream)
    return fleet.send
