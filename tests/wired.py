"""
The whole house as `wire` puts it together, on a clock and without a network.

Clients speak HTTP over transports in memory; batches go to an upstream that is
told what to do, and what is relayed to a resource.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
from attrs import define, field
from doubles import RecordingUpstream
from treq.testing import RequestTraversalAgent
from twisted.internet.error import ReactorNotRunning
from twisted.internet.testing import (
    MemoryReactorClock,
    StringTransportWithDisconnection,
)
from twisted.web.resource import Resource
from webdoubles import Answer, Client, OpenUpstream

from abproxy.service import ProxyService
from abproxy.settings import Settings
from abproxy.web.server import ProxySite
from abproxy.wiring import wire

__all__ = ["START", "Reactor", "Wired", "wired"]

START = 1_700_000_000.0
"""The moment at which every house is put up: 14 November 2023, 22:13:20 UTC."""


class Reactor(MemoryReactorClock):
    """
    Clock and network in memory; signals are heard at once.

    It runs until it is stopped, and cannot be stopped before.
    """

    def run(self) -> None:
        """Begin to run."""
        self.running = self.hasRun = True
        for hook, arguments, more in self.whenRunningHooks:
            hook(*arguments, **more)

    def stop(self) -> None:
        """Stop."""
        if not self.running:
            raise ReactorNotRunning
        super().stop()

    def callFromThread(self, callback: Callable[..., Any], *arguments: Any) -> None:  # noqa: N802
        """Call *callback*: there is but one thread."""
        callback(*arguments)


@define(kw_only=True, eq=False)
class Wired:
    """A house that is put together, but not started."""

    reactor: Reactor
    service: ProxyService
    upstream: RecordingUpstream
    relayed: RequestTraversalAgent
    transport: Any = None
    """What leads to a real upstream, which *upstream* stands for."""

    clients: list[Client] = field(factory=list)

    @property
    def telemetry(self) -> Any:
        """All observers."""
        stop: Any = self.service.stop_telemetry
        return stop.__self__

    @property
    def recorder(self) -> Any:
        """Whoever watches."""
        return self.telemetry.recorder

    @property
    def status(self) -> Any:
        """What the pages show."""
        report: Any = self.service.report
        return report.__self__

    @property
    def app(self) -> Any:
        """The app that answers clients."""
        reloading: Any = self.service.reload
        return reloading.__self__.app

    def connect(self, site: ProxySite | None = None, address: Any = None) -> Client:
        """Open a connection to the clients' door, or to another, from an *address*."""
        channel: Any = (site or self.service.site).buildProtocol(None)
        transport = StringTransportWithDisconnection(peerAddress=address)
        transport.protocol = channel
        channel.makeConnection(transport)
        client = Client(transport, channel, self.reactor)
        self.clients.append(client)
        return client

    def call(
        self, *texts: str, key: str | None = None, path: str = "/embed", **more: Any
    ) -> Client:
        """Ask for the embeddings of *texts*."""
        client = self.connect()
        headers = [("Authorization", f"Bearer {key}")] if key else []
        body = msgspec.json.encode({"inputs": texts, **more})
        client.embed(body, *headers, path=path)
        return client

    def ask(
        self, method: str, path: str, body: bytes = b"", *headers: tuple[str, str]
    ) -> Answer:
        """Ask on a connection of its own, and take the answer."""
        client = self.connect()
        client.ask(method, path, body, *headers)
        self.relayed.flush()
        [answer] = client.answers(method)
        return answer

    def page(self, path: str, key: str = "") -> Any:
        """Read a page of ours that is JSON."""
        shown = ("Authorization", f"Bearer {key}")
        return msgspec.json.decode(self.ask("GET", path, b"", shown).body)

    def figure(self, name: str, **labels: str) -> float | None:
        """Read one figure as Prometheus would; None if there is none."""
        registry = self.recorder.metrics.registry
        found: float | None = registry.get_sample_value(f"abproxy_{name}", labels)
        return found

    def answer_all(self) -> None:
        """Let the upstream answer whatever is open, and what follows."""
        while self.upstream.open:
            sent = self.upstream.open[0]
            if sent.request.body:
                sent.answer()
            else:
                sent.refuse(404)

    def close(self) -> None:
        """Let all clients leave; nothing may be left to do."""
        for client in self.clients:
            client.leave()
        self.service.collector.stop()
        assert not self.reactor.getDelayedCalls()


@contextmanager
def wired(elsewhere: Resource | None = None, **settings: Any) -> Iterator[Wired]:
    """
    Put the house together.

    Args:
        elsewhere: where requests go that are relayed.
        settings: what the operator chose.
    """
    reactor = Reactor()
    reactor.advance(START)
    chosen = Settings(**{"port": "0", **settings})
    service: Any = wire(chosen, reactor)
    upstream = RecordingUpstream()
    agent = RequestTraversalAgent(elsewhere or OpenUpstream())
    house = Wired(reactor=reactor, service=service, upstream=upstream, relayed=agent)
    house.app.relay.agent = agent
    house.transport = service.upstream.transport
    service.upstream.transport = upstream.send
    try:
        yield house
        house.close()
    finally:
        _let_go(house)


def _let_go(house: Wired) -> None:
    """Close what `wire` has opened."""
    gates: list[Any] = [house.service.public, house.service.private]
    for gate in filter(None, gates):
        gate.listener.socket.close()
    access_log = house.telemetry.access_log
    if access_log is not None and access_log._file is not sys.stdout:
        access_log._file.close()
