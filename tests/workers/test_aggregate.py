"""What the supervisor answers for its workers, each of them a whole proxy."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
from attrs import define, field
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from abproxy.errors import CannotConnect
from abproxy.http.messages import Response, UpstreamRequest
from abproxy.settings.settings import Settings
from abproxy.workers.aggregate import ANSWER_S, PROBE_S, Aggregator
from abproxy.workers.process import WorkerPool, WorkerProcess
from abproxy.workers.scrapes import parse_scrape
from support.proxy import InMemoryProxy, wired


@define(eq=False)
class Worker:
    """A proxy that is asked by the supervisor."""

    proxy: InMemoryProxy
    is_silent: bool = False
    is_gone: bool = False
    asked: list[UpstreamRequest] = field(factory=list)

    def send(self, question: UpstreamRequest) -> Deferred[Response]:
        """Answer, unless it is silent or gone."""
        self.asked.append(question)
        if self.is_gone:
            return fail(CannotConnect("gone"))
        if self.is_silent:
            return Deferred()
        lines = [(name.decode(), value.decode()) for name, value in question.headers]
        answer = self.proxy.ask("GET", question.path.decode(), b"", *lines)
        return succeed(
            Response(status=answer.status, reason=b"", headers=(), body=answer.body)
        )

    def answers(self, calls: int) -> None:
        """Answer so many calls of clients."""
        asked = [self.proxy.call("a") for _ in range(calls)]
        self.proxy.answer_all()
        assert all(client.answers() for client in asked)


class TwoWorkers:
    """Two workers, and the aggregator that asks them."""

    def __init__(self, *proxies: InMemoryProxy, settings: Settings) -> None:
        self.clock = Clock()
        self.workers = [Worker(proxy) for proxy in proxies]
        self.pool = WorkerPool([self._child(str(at)) for at in (1, 2)])
        send_to = {str(at): each.send for at, each in enumerate(self.workers, 1)}
        self.aggregator = Aggregator(
            pool=self.pool, send_to=send_to, clock=self.clock, settings=settings
        )

    def _child(self, name: str) -> WorkerProcess:
        return WorkerProcess(
            reactor=self.clock,
            name=name,
            folder=Path("/private"),
            port_fd=0,
            settings=Settings(),
        )

    def result(self, asked: Any) -> Any:
        """Wait for what is asked, as long as it may take."""
        found: list[Any] = []
        Deferred.fromCoroutine(asked).addBoth(found.append)
        self.clock.pump([ANSWER_S, ANSWER_S, PROBE_S])
        return found[0]

    def figure(self, name: str) -> float:
        """Read a figure, all its labels added up."""
        _, body = self.result(self.aggregator.metrics(b""))
        samples = [
            sample
            for family in parse_scrape(body.decode())
            for sample in family.samples
        ]
        return sum(each.value for each in samples if each.name == name)

    def status(self, since: int = 0) -> Any:
        """Read what the page shows, as JSON has it."""
        return msgspec.to_builtins(self.result(self.aggregator.status(since)))


def request(path: bytes) -> Any:
    """Make a request of which only the path matters."""
    return type("Request", (), {"path": path})()


KEYS = ("sesame", "open")


@pytest.fixture(params=[(), KEYS], ids=["open", "with keys"])
def supervisor(request: pytest.FixtureRequest) -> Iterator[TwoWorkers]:
    """Put up two workers."""
    keys = request.param
    with ExitStack() as stack:
        proxies = [stack.enter_context(wired(api_keys=keys)) for _ in range(2)]
        yield TwoWorkers(*proxies, settings=Settings(workers=2, api_keys=keys))


@pytest.fixture
def free() -> Iterator[TwoWorkers]:
    """Put up two workers without keys."""
    with wired() as one, wired() as other:
        yield TwoWorkers(one, other, settings=Settings(workers=2))


def test_all_are_asked_with_a_key_that_they_accept(supervisor: TwoWorkers) -> None:
    """They are proxies like any other."""
    status = supervisor.status()

    assert [worker["answers"] for worker in status["workers"]] == [True, True]


def test_what_was_counted_is_the_sum(free: TwoWorkers) -> None:
    """In figures and on the page."""
    one, other = free.workers
    one.answers(2)
    other.answers(3)

    assert free.figure("abproxy_calls_total") == 5
    assert free.status()["totals"]["calls"] == 5


def test_only_batches_that_are_new_are_asked_for(free: TwoWorkers) -> None:
    """And shown to a page that has not seen them."""
    one, other = free.workers
    one.answers(1)
    free.status()
    other.answers(2)

    status = free.status(since=1)

    assert [batch["serial"] for batch in status["batches"]] == [2, 3]
    assert one.asked[-1].path == b"/-/status.json?since=1"


def test_a_silent_worker_is_waited_for_a_second(free: TwoWorkers) -> None:
    """Its counts stay, what it has just now is not known."""
    one, other = free.workers
    one.answers(2)
    other.answers(3)
    before = free.figure("abproxy_slots")
    one.is_silent = True

    assert free.figure("abproxy_calls_total") == 5
    assert free.figure("abproxy_workers_answering") == 1
    assert free.figure("abproxy_slots") == before / 2
    assert [each["answers"] for each in free.status()["workers"]] == [False, True]


def test_a_worker_that_is_gone_has_still_answered_its_calls(free: TwoWorkers) -> None:
    """The one in its place begins at 0."""
    one, other = free.workers
    one.answers(2)
    other.answers(3)
    free.figure("abproxy_calls_total")
    one.is_gone = True

    free.aggregator.worker_ended("1")

    assert free.figure("abproxy_calls_total") == 5
    assert free.status()["totals"]["calls"] == 5


def test_with_no_worker_there_is_no_status(free: TwoWorkers) -> None:
    """And it is said that way, not as a bug."""
    for worker in free.workers:
        worker.is_gone = True

    failure = free.result(free.aggregator.status(0))

    assert failure.check(CannotConnect)
    assert failure.getErrorMessage() == "no worker answers"


def test_figures_are_there_without_any_worker(free: TwoWorkers) -> None:
    """That none answers must be seen somewhere."""
    for worker in free.workers:
        worker.is_gone = True

    assert free.figure("abproxy_workers_answering") == 0
    assert free.figure("abproxy_workers") == 2


def test_replaced_workers_are_counted(free: TwoWorkers) -> None:
    """An operator who sees it grow should look into the log."""
    free.pool.workers[0].restarts = 3

    assert free.figure("abproxy_worker_restarts_total") == 3
    assert free.status()["workers"][0]["restarts"] == 3


def ready(free: TwoWorkers) -> Any:
    """Ask whether calls may come."""
    return free.result(free.aggregator.best_answer(request(b"/-/healthy")))


def test_one_good_answer_is_enough(free: TwoWorkers) -> None:
    """Calls may come as long as one worker accepts them."""
    free.workers[0].is_gone = True

    assert ready(free).status == 200


def test_no_answer_at_all_is_an_error(free: TwoWorkers) -> None:
    """Of our own."""
    for worker in free.workers:
        worker.is_gone = True

    assert ready(free).check(CannotConnect)


def test_workers_share_the_limits_of_one_process(free: TwoWorkers) -> None:
    """The sum on the page is what the operator may expect."""
    flow = free.status()["flow"]

    assert flow["waiting_max_items"] == 2 * Settings().max_waiting_inputs
    assert flow["draining"] is False
