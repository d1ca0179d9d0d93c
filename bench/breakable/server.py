"""
The server as a whole: its port, its connections, its deaths and rebirths.

Everything that can be done to it is a method; `control` calls the same ones.
"""

from typing import Any

from attrs import define, evolve, field
from twisted.internet.interfaces import IAddress, IDelayedCall, IListeningPort
from twisted.internet.protocol import ServerFactory

from bench.breakable.connection import Connection
from bench.breakable.control import CONTROL, control
from bench.breakable.faults import Fault, Faults
from bench.breakable.messages import Answer, Delivery, Request, page
from bench.breakable.model import Job, info, models, read_job, rerank
from bench.breakable.moods import MOODS
from bench.breakable.refusals import Refusal, refusal_of
from bench.breakable.traits import Traits
from bench.breakable.work import Task, Work

__all__ = ["Breakable", "Seen"]

FULL = 429, "Model is overloaded", "Overloaded"
OK = 200
GATEWAY_TIMEOUT = 504


@define(kw_only=True)
class Seen:
    """What has happened so far."""

    batches: list[int] = field(factory=list)
    """The number of inputs of each inference request, refused or not."""

    refused: int = 0
    """Requests for which there was no permit, or that were told so."""

    deaths: int = 0
    connections: int = 0
    hung_up: int = 0
    """Clients that left while an answer was owed."""


class _Factory(ServerFactory):
    noisy = False

    def __init__(self, server: "Breakable") -> None:
        self.server = server

    def buildProtocol(self, addr: IAddress) -> Connection:  # noqa: ARG002, N802
        return Connection(self.server)


@define(kw_only=True, eq=False)
class Breakable:
    """An embedding server that breaks on command."""

    reactor: Any
    traits: Traits = field(factory=Traits)
    port: int = 0
    """Where it listens; 0 for any free port, which is then kept."""

    ip: str = "127.0.0.1"
    faults: Faults = field(init=False, factory=Faults)
    refusals: list[Refusal] = field(init=False, factory=list)
    seen: Seen = field(init=False, factory=Seen)
    work: Work = field(init=False)
    connections: set[Connection] = field(init=False, factory=set)
    _listening: IListeningPort | None = field(init=False, default=None)
    _timer: IDelayedCall | None = field(init=False, default=None)
    _is_away: bool = field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        """Begin with nothing to do."""
        self.work = Work(clock=self.reactor, traits=self.traits)

    @property
    def url(self) -> str:
        """Where it is, or was."""
        return f"http://{self.ip}:{self.port}"

    def start(self) -> None:
        """Open the port."""
        self._timer = None
        listening = self.reactor.listenTCP(
            self.port, _Factory(self), backlog=1024, interface=self.ip
        )
        self._listening = listening
        self.port = listening.getHost().port

    async def stop(self) -> None:
        """Close everything, for good."""
        self._cancel_timer()
        listening, self._listening = self._listening, None
        if listening is not None:
            await listening.stopListening()
        self.cut_all()

    def break_(self, fault: str, value: int = 0, times: int = 1) -> None:
        """Let the next *times* inference requests meet a *fault*."""
        self.faults.add(Fault(fault=fault, value=value, times=times))

    def change(self, **traits: Any) -> None:
        """Have other traits from now on, as after an upgrade."""
        self.traits = self.work.traits = evolve(self.traits, **traits)
        self.work.plan()

    def refuse(self, **kind: Any) -> None:
        """Refuse every request of a *kind* from now on; see `Refusal`."""
        self.refusals.append(Refusal(**kind))

    def be(self, mood: str) -> None:
        """Be as some servers are; see `MOODS`."""
        self.change(**MOODS[mood].traits)
        self.refusals += MOODS[mood].refusals

    def mend(self) -> None:
        """Let nothing go wrong any more, and refuse nothing; traits stay."""
        self.faults.clear()
        self.refusals.clear()

    def die(self, restart_s: float | None = None) -> None:
        """Be gone, with everything in flight, until a supervisor starts it again."""
        if self._listening is None:
            return  # it is gone already, and comes back in its time
        self.seen.deaths += 1
        seconds = self.traits.restart_s if restart_s is None else restart_s
        self._recover()
        if self.traits.gateway:
            self._is_away = True
            self._timer = self.reactor.callLater(seconds, self._come_back)
            for connection in self.connections:
                if connection.is_busy:
                    self._answer_for_it(connection)
            return
        listening, self._listening = self._listening, None
        if listening is not None:
            listening.stopListening()
        self.cut_all()
        self._timer = self.reactor.callLater(seconds, self.start)

    def cut_all(self) -> None:
        """Reset every connection."""
        for connection in list(self.connections):
            connection.cut()

    def close_idle(self) -> None:
        """Close the connections that wait for a request, as servers do in time."""
        for connection in list(self.connections):
            if not connection.is_busy:
                connection.transport.loseConnection()

    def accept_slowly(self, seconds: float) -> None:
        """Leave new connections in the kernel's queue for a while."""
        listening: Any = self._listening
        if listening is not None:
            self._recover()
            listening.stopReading()
            self._timer = self.reactor.callLater(seconds, self._accept_again)

    def turn_away(self, seconds: float) -> None:
        """
        Be gone for a while behind a port that stays open.

        Some balancers and port mappings take a connection before they find
        that no process is behind them, and close it again.
        """
        if self._listening is None:
            return
        self._recover()
        self._is_away = True
        self.cut_all()
        self._timer = self.reactor.callLater(seconds, self._come_back)

    def opened(self, connection: Connection) -> None:
        """Count a connection in."""
        self.seen.connections += 1
        self.connections.add(connection)
        if self._is_away and not self.traits.gateway:
            connection.transport.loseConnection()

    def kept(self, connection: Connection) -> None:
        """Let *connection* be idle, for a while."""
        seconds = self.traits.keep_alive_ms / 1000
        if seconds:
            close = connection.transport.loseConnection
            connection.patience = self.reactor.callLater(seconds, close)

    def lost(self, connection: Connection) -> None:
        """Count a connection out, and forget what was computed for it."""
        self.connections.discard(connection)
        self.seen.hung_up += connection.is_busy
        self._forget(connection)

    def asked(self, connection: Connection, request: Request) -> None:
        """Answer *request*, now or when it is computed."""
        job = read_job(request)
        if self._is_away and not request.path.startswith(CONTROL):
            self._answer_for_it(connection)
        elif isinstance(job, Job):
            self._infer(connection, request, job)
        else:
            self._answer(connection, job or self._look_up(request), None)

    def _look_up(self, request: Request) -> Answer:
        if request.path.startswith(CONTROL):
            return control(self, request)
        if request.path == b"/info" and not self.traits.openai:
            return info(self.traits)
        if request.path == b"/rerank":
            return rerank(request)
        if self.traits.openai:
            if request.path == b"/v1/models":
                return models(self.traits)
            if request.path.endswith(b"/"):
                return _without_slash(request)
        return Answer(status=200 if request.path in {b"/health", b"/ping"} else 404)

    def _infer(self, connection: Connection, request: Request, job: Job) -> None:
        self.seen.batches.append(len(job.inputs))
        fault = self.faults.take()
        if job.holds(self.traits.deadly_text):
            self.die()
        elif kind := refusal_of(self.refusals, request, job.inputs):
            self._answer_in(connection, kind.after_ms, kind.answer())
        elif refusal := job.refusal(self.traits):
            self._answer(connection, refusal, fault)
        elif not self.work.admits(len(job.inputs)):
            self.seen.refused += 1
            self._answer(connection, job.error(*FULL), fault)
        else:
            self._compute(connection, job, fault)

    def _compute(self, connection: Connection, job: Job, fault: Fault | None) -> None:
        def done() -> None:
            connection.task = None
            spoil = fault.on_rows if fault else list
            self._answer(connection, job.answer(self.traits, spoil), fault)

        connection.task = Task(inputs=len(job.inputs), done=done)
        if self.traits.deadline_ms:
            late = page(GATEWAY_TIMEOUT)
            self._answer_in(connection, self.traits.deadline_ms, late)
        self.work.begin(connection.task)

    def _answer(
        self, connection: Connection, answer: Answer, fault: Fault | None
    ) -> None:
        self._forget(connection)
        spoiled = fault.on_answer(answer) if fault else answer
        if self.traits.quotes and (spoiled.status != OK or spoiled is not answer):
            spoiled = evolve(spoiled, body=spoiled.body + b" to " + connection.asked)
        answer = spoiled
        data = answer.to_bytes(chunked=self.traits.chunked)
        connection.deliver(fault.on_bytes(data) if fault else Delivery(data=data))

    def _answer_for_it(self, connection: Connection) -> None:
        """Let the gateway answer, as the server is away."""
        self._forget(connection)
        answer = page(self.traits.gateway)
        self._answer_in(connection, self.traits.gateway_ms, answer)

    def _answer_in(self, connection: Connection, ms: float, answer: Answer) -> None:
        self._forget_timer(connection)
        arguments = self._answer, connection, answer, None
        connection.timer = self.reactor.callLater(ms / 1000, *arguments)

    def _forget(self, connection: Connection) -> None:
        """Compute nothing more for *connection*, and let no gateway answer it."""
        self._forget_timer(connection)
        task, connection.task = connection.task, None
        if task is not None:
            self.work.cancel(task)

    def _forget_timer(self, connection: Connection) -> None:
        timer, connection.timer = connection.timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _come_back(self) -> None:
        self._timer = None
        self._is_away = False

    def _accept_again(self) -> None:
        self._timer = None
        listening: Any = self._listening
        listening.startReading()

    def _recover(self) -> None:
        """End what was done to it before, if the port is open."""
        self._cancel_timer()
        self._is_away = False
        listening: Any = self._listening
        listening.startReading()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _without_slash(request: Request) -> Answer:
    """Send the client to the path without a slash at its end, as Starlette does."""
    host = request.headers.get(b"host", b"")
    location = b"http://%b%b" % (host, request.path.rstrip(b"/"))
    return Answer(status=307, location=location)
