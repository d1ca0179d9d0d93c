"""Several servers in memory as one fleet, which the test answers for."""

from collections.abc import Sequence
from random import Random
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from abproxy.events import Observer
from abproxy.http.headers import Credentials
from abproxy.http.messages import Response, UpstreamRequest
from abproxy.upstream.fleet.fleet import Fleet
from abproxy.upstream.fleet.member import Member
from abproxy.upstream.server_info import ServerInfo
from support.upstream import RecordingUpstream, Sent, make_upstream, reply

GOOD = reply(200, b"[[1]]")


def request_of(items: int = 1, *, size: int = 20) -> UpstreamRequest:
    """Make a request with so many inputs."""
    return UpstreamRequest(path=b"/embed", headers=(), body=b"x" * size, items=items)


@define(eq=False)
class Asked:
    """What becomes of one request."""

    answer: Deferred[Response]
    results: list[Any] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.answer.addBoth(self.results.append)

    @property
    def status(self) -> int | None:
        """The status of its answer; None as long as there is none."""
        return self.results[0].status if self.results else None

    @property
    def error(self) -> BaseException | None:
        """Why it failed."""
        [failure] = self.results
        assert isinstance(failure, Failure), failure
        return failure.value


@define(eq=False)
class Servers:
    """A fleet, and the far ends of its servers, by their letters."""

    count: int
    weights: Sequence[float] = ()
    permits: int = 512
    observer: Observer = field(factory=Observer)
    clock: Clock = field(factory=Clock)
    ends: dict[str, RecordingUpstream] = field(factory=dict)
    members: dict[str, Member] = field(factory=dict)
    fleet: Fleet = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.fleet = Fleet(
            clock=self.clock,
            timeout_s=7,
            credentials=Credentials(),
            permits_of=lambda info: info.max_inputs_in_flight or self.permits,
            random=Random(1),  # noqa: S311
            observer=self.observer,
        )
        for letter in "abcdefgh"[: self.count]:
            self.add(letter)

    def add(self, letter: str) -> Member:
        """Add one server."""
        end = self.ends[letter] = RecordingUpstream()
        upstream = make_upstream(
            end.send, self.clock, base_url=f"http://{letter}", observer=self.observer
        )
        at = len(self.members)
        weight = self.weights[at] if at < len(self.weights) else 1.0
        member = self.members[letter] = self.fleet.add(upstream, weight)
        return member

    def send(self, items: int = 1, *, size: int = 20) -> Asked:
        """Send a request to the fleet."""
        return Asked(self.fleet.send(request_of(items, size=size)))

    def send_to(self, letter: str, *, size: int = 20) -> Asked:
        """Send a request that goes to a certain server."""
        others = [each for name, each in self.members.items() if name != letter]
        for each in others:
            each.drained_at = 0.0
        asked = self.send(size=size)
        for each in others:
            each.drained_at = None
        return asked

    def batches(self, letter: str) -> list[Sent]:
        """The requests for batches that a server has, and has not answered."""
        return [each for each in self.ends[letter].open if each.request.body]

    def questions(self, letter: str) -> list[Sent]:
        """The questions that a server has not answered."""
        return [each for each in self.ends[letter].open if not each.request.body]

    def where(self) -> str:
        """The letters of the servers that have requests, one for each."""
        return "".join(letter * len(self.batches(letter)) for letter in self.ends)

    def answer(self, letter: str, response: Response = GOOD) -> None:
        """Answer the oldest request at a server."""
        self.batches(letter)[0].done.callback(response)

    def fail(self, letter: str, error: Exception) -> None:
        """Let the oldest request at a server fail."""
        self.batches(letter)[0].fail(error)

    def answer_question(self, letter: str, status: int = 200) -> None:
        """Answer the oldest question to a server."""
        self.questions(letter)[0].done.callback(reply(status, b""))

    def learn_speeds(self, rounds: int = 150, **takes_s: float) -> None:
        """Let each server answer so many requests, each in its own time."""
        for letter in self.ends:
            work = self.members[letter].work
            for _ in range(rounds):
                self._answer_in(letter, takes_s.get(letter, 0.1))
            assert work.answers >= rounds
        for member in self.members.values():
            member.work.share = 1 / len(self.members)
            member.standing.heard_at = self.clock.seconds()

    def _answer_in(self, letter: str, seconds: float) -> None:
        self.send_to(letter)
        self.clock.advance(seconds)
        self.answer(letter)

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing is counted as in flight, anywhere."""
        return not any(
            each.work.requests or each.work.items or each.work.in_flight
            for each in self.members.values()
        )


def say(servers: Servers, letter: str, **info: Any) -> None:
    """Let a server say something of itself."""
    discovery = servers.members[letter].upstream.discovery
    discovery.info = ServerInfo(**info)
    discovery.on_change(discovery.info)
