"""A proxy of several models, in memory: each has an upstream that is recorded."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from attrs import define, field
from treq.testing import RequestTraversalAgent
from twisted.internet.testing import StringTransportWithDisconnection
from twisted.web.resource import Resource
from twisted.web.server import Request

from abproxy.settings.settings import Settings, settings_from
from abproxy.wiring import wire
from support.client import Answer, Client
from support.proxy import START, Reactor
from support.upstream import RecordingUpstream, reply

__all__ = ["SeveralModels", "several_models", "tables"]


class Elsewhere(Resource):
    """Says what was relayed to it."""

    isLeaf = True

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.asked: list[tuple[bytes, bytes, bytes]] = []

    def render(self, request: Request) -> bytes:
        """Answer anything."""
        body = request.content.read() if request.content else b""
        self.asked.append((request.method, request.uri, body))
        return self.name.encode()


def _openai(body: bytes) -> bytes:
    """Answer a request of the OpenAI API."""
    asked = msgspec.json.decode(body)
    inputs = asked["input"] if isinstance(asked["input"], list) else [asked["input"]]
    rows = [{"index": at, "embedding": [len(t)]} for at, t in enumerate(inputs)]
    return msgspec.json.encode({"model": asked.get("model"), "data": rows})


def tables(**models: str) -> str:
    """Write a file of models, each with its lines."""
    return "\n".join(
        f'[{name}]\nurl = "http://{name}:8080"\n{lines}\n'
        for name, lines in models.items()
    )


@define(kw_only=True, eq=False)
class SeveralModels:
    """The proxy, and what its models were asked."""

    clock: Reactor
    service: Any
    file: Path
    environ: dict[str, str]
    upstreams: dict[str, RecordingUpstream] = field(factory=dict)
    elsewhere: dict[str, Elsewhere] = field(factory=dict)
    agents: list[RequestTraversalAgent] = field(factory=list)
    clients: list[Client] = field(factory=list)

    @property
    def serving(self) -> Any:
        """All models."""
        return self.configuration.serving

    @property
    def configuration(self) -> Any:
        """What applies settings."""
        return self.service.reload.__self__

    def model(self, name: str) -> Any:
        """Return one of the models."""
        [found] = [each for each in self.serving.all if each.name == name]
        return found

    def record(self) -> None:
        """Keep what is sent to each model from now on."""
        for model in self.serving.models:
            if model.name in self.upstreams:
                continue
            upstream = self.upstreams[model.name] = RecordingUpstream()
            other = self.elsewhere[model.name] = Elsewhere(model.name)
            model.upstream.transport = upstream.send
            model.relay.agent = RequestTraversalAgent(other)
            self.agents.append(model.relay.agent)
            # As if the server had been asked, and had said nothing.
            model.upstream.discovery._in_doubt = False

    def connect(self) -> Client:
        """Open a connection."""
        channel: Any = self.service.site.buildProtocol(None)
        transport = StringTransportWithDisconnection()
        transport.protocol = channel
        channel.makeConnection(transport)
        client = Client(transport, channel, self.clock)
        self.clients.append(client)
        return client

    def call(self, path: str, client: Client | None = None, **members: Any) -> Client:
        """Send a call with these members; it is open until its model answers."""
        client = client or self.connect()
        client.embed(msgspec.json.encode(members), path=path)
        return client

    def ask(self, method: str, path: str, body: bytes = b"", key: str = "") -> Answer:
        """Ask for what is not batched, and take the answer."""
        client = self.connect()
        shown = ("Authorization", f"Bearer {key}")
        client.ask(method, path, body, ("Content-Type", "application/json"), shown)
        for agent in self.agents:
            agent.flush()
        [answer] = client.answers(method)
        return answer

    def sent(self, name: str) -> list[tuple[bytes, bytes]]:
        """Return path and body of all that was sent to a model as batches."""
        sent = (each.request for each in self.upstreams[name].sent)
        return [(each.path, each.body) for each in sent if each.body]

    def answer_all(self) -> None:
        """Let all upstreams answer whatever is open."""
        for upstream in self.upstreams.values():
            while upstream.open:
                sent = upstream.open[0]
                if not sent.request.body:
                    sent.refuse(404)
                elif b"embeddings" in sent.request.path:
                    sent.done.callback(reply(200, _openai(sent.request.body)))
                else:
                    sent.answer()

    def write(self, text: str) -> None:
        """Replace the file of models."""
        self.file.write_text(text, encoding="utf-8")

    def reload(self) -> None:
        """Read all again, as on SIGHUP."""
        self.service.reload()
        self.record()


@contextmanager
def several_models(
    folder: Path, text: str, *, is_fast: bool = True, **environ: str
) -> Iterator[SeveralModels]:
    """
    Give a proxy of the models in *text*; it has to be at rest in the end.

    Args:
        folder: where the file of models is written.
        text: what is in it.
        is_fast: whether calls take the fast path.
        environ: other settings, as in the environment.
    """
    file = folder / "models.toml"
    file.write_text(text, encoding="utf-8")
    values = {
        "PORT": "0",
        "DEDUPE": "false",
        "MODELS": str(file),
        "FAST_PATHS": "all" if is_fast else "write,poll,client",
        **environ,
    }

    def read() -> Settings:
        return settings_from({}, values, {})

    clock = Reactor()
    clock.advance(START)
    service = wire(read(), clock, read)
    here = SeveralModels(clock=clock, service=service, file=file, environ=values)
    here.record()
    try:
        yield here
        for client in here.clients:
            client.leave()
        for model in here.serving.models:
            model.collector.stop()
        assert not clock.getDelayedCalls()
    finally:
        service.public.listener.socket.close()
        if (access_log := service.stop_telemetry.__self__.access_log) is not None:
            access_log._file.close()
