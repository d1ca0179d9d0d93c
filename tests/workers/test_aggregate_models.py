"""Several models where there are several workers: figures of each, of all workers."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client.core import Metric
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from abproxy.http.messages import Response, UpstreamRequest
from abproxy.settings.settings import Settings, settings_from
from abproxy.workers.aggregate import ANSWER_S, Aggregator
from abproxy.workers.process import WorkerPool, WorkerProcess
from abproxy.workers.scrapes import add_scrapes, parse_scrape
from support.models import SeveralModels, several_models, tables

FILE = tables(a="", b="slots = 4")


class Workers:
    """Two proxies of two models, and the aggregator that asks them."""

    def __init__(self, *proxies: SeveralModels, settings: Settings) -> None:
        self.clock = Clock()
        self.proxies = proxies
        named = dict(zip("12", proxies, strict=True))
        self.aggregator = Aggregator(
            pool=WorkerPool([self._child(name) for name in named]),
            send_to={name: self._send(proxy) for name, proxy in named.items()},
            clock=self.clock,
            settings=settings,
        )

    def _child(self, name: str) -> WorkerProcess:
        return WorkerProcess(
            reactor=self.clock,
            name=name,
            folder=Path("/private"),
            port_fd=0,
            settings=Settings(),
        )

    def _send(self, proxy: SeveralModels) -> Any:
        def send(question: UpstreamRequest) -> Deferred[Response]:
            answer = proxy.ask("GET", question.path.decode())
            return succeed(
                Response(status=200, reason=b"", headers=(), body=answer.body)
            )

        return send

    def result(self, asked: Any) -> Any:
        """Wait for what is asked."""
        found: list[Any] = []
        Deferred.fromCoroutine(asked).addBoth(found.append)
        self.clock.advance(ANSWER_S)
        return found[0]

    def status(self, model: str = "", since: int = 0) -> Any:
        """Read the status, as JSON has it."""
        return msgspec.to_builtins(self.result(self.aggregator.status(since, model)))

    def answer(self, worker: int, model: str, calls: int) -> None:
        """Let a worker answer so many calls for a model."""
        proxy = self.proxies[worker]
        for _ in range(calls):
            proxy.call(f"/models/{model}/embed", inputs="i")
            proxy.answer_all()


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Workers]:
    """Put up two workers."""
    with ExitStack() as stack:
        proxies = [
            stack.enter_context(several_models(tmp_path, FILE)) for _ in range(2)
        ]
        settings = settings_from({}, proxies[0].environ | {"WORKERS": "2"}, {})
        yield Workers(*proxies, settings=settings)


def test_each_model_has_the_sum_of_all_workers(workers: Workers) -> None:
    """Whichever is asked for first."""
    workers.answer(0, "b", 2)
    workers.answer(1, "b", 3)
    workers.answer(1, "a", 1)

    assert workers.status("b")["totals"]["calls"] == 5
    assert workers.status()["totals"]["calls"] == 1
    assert [each["calls"] for each in workers.status()["models"]] == [1, 5]


def test_the_last_batches_of_models_are_kept_apart(workers: Workers) -> None:
    """Each is numbered by itself."""
    workers.answer(0, "b", 2)
    workers.answer(1, "a", 1)

    assert len(workers.status("b")["batches"]) == 2
    assert len(workers.status("a")["batches"]) == 1
    assert workers.status("b", since=2)["batches"] == []


def test_settings_are_those_of_the_model(workers: Workers) -> None:
    """With what its table says."""
    shown = {each["name"]: each["value"] for each in workers.status("b")["settings"]}

    assert shown["SLOTS"] == "4"


def test_the_state_of_each_model_is_the_worst_that_a_worker_knows(
    workers: Workers,
) -> None:
    """One model that is away does not make another one so."""
    workers.answer(0, "a", 1)
    workers.answer(1, "a", 1)
    workers.answer(0, "b", 1)
    proxy = workers.proxies[1]
    proxy.call("/models/b/embed", inputs="i")
    proxy.upstreams["b"].open[0].refuse(429)

    states = {each["name"]: each["state"] for each in workers.status()["models"]}
    text = [each.ask("GET", "/metrics").body.decode() for each in workers.proxies]
    proxy.clock.advance(10)
    proxy.answer_all()

    assert states == {"a": "up", "b": "full"}
    whole = add_scrapes([parse_scrape(each) for each in text])
    assert _states(whole) == {("a", "up"), ("b", "full")}


def _states(scrape: list[Metric]) -> set[tuple[str, str]]:
    return {
        (sample.labels["model"], sample.labels["state"])
        for family in scrape
        for sample in family.samples
        if sample.name == "abproxy_upstream_state" and sample.value
    }


def test_figures_of_models_stay_apart(workers: Workers) -> None:
    """As the label tells them apart in each worker."""
    workers.answer(0, "b", 2)
    workers.answer(1, "b", 1)
    workers.answer(1, "a", 1)

    _, body = workers.result(workers.aggregator.metrics(b""))

    lines = body.decode().splitlines()
    labels = 'route="/embed",status="200"'
    assert f'abproxy_calls_total{{model="a",{labels}}} 1.0' in lines
    assert f'abproxy_calls_total{{model="b",{labels}}} 3.0' in lines
