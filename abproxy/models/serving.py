"""
All models that are served: made at the start, and changed with the settings.

A model that is taken out answers what it has accepted, and is closed then.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from abproxy.errors import SettingsError
from abproxy.http.messages import Response
from abproxy.models.model import ServedModel
from abproxy.settings.models import ModelTable
from abproxy.settings.settings import Settings, settings_of
from abproxy.telemetry.recorder import Recorder
from abproxy.upstream.endpoints import address_of
from abproxy.upstream.health import Answer
from abproxy.web.models import Models

__all__ = ["Serving"]

SERVER_ERROR = 500

LOOK_S = 1.0
"""How often a model that was taken out is looked at, in seconds."""

Wanted = tuple[str, ModelTable | None, Settings]

Make = Callable[[Settings, ModelTable | None], ServedModel]


@define(kw_only=True, eq=False)
class Serving:
    """The models of a proxy."""

    make: Make = field(repr=False)
    """Make the model with these settings; without a table it is the only one."""

    clock: IReactorTime = field(repr=False)
    forget: Callable[[Recorder], None] = field(repr=False)
    """Called with the recorder of a model that is not served any more."""

    models: list[ServedModel] = field(init=False, factory=list)
    """All that take calls, the default one first."""

    on_change: Callable[[], None] = field(init=False, default=lambda: None, repr=False)
    """Called when calls may have to be read in another way."""

    drained: set[str] = field(factory=set)
    """Addresses to which the operator wants nothing to be sent; the fleets have it."""

    _leaving: dict[ServedModel, IDelayedCall | None] = field(
        init=False, factory=dict, repr=False
    )
    """Those that were taken out and have calls to answer, and when that is checked."""

    _is_running: bool = field(init=False, default=False)
    _log: ClassVar[Logger] = Logger()

    @property
    def all(self) -> list[ServedModel]:
        """Also those that were taken out, and have calls to answer."""
        return [*self.models, *self._leaving]

    @property
    def servers(self) -> str:
        """What to call their servers in the log."""
        urls = [(model.name, model.upstream.base_url) for model in self.models]
        return "; ".join(f"{name}: {url}" if name else url for name, url in urls)

    @property
    def table(self) -> Models:
        """Return how requests find them now."""
        served = [(model.names, model.served()) for model in self.models]
        return Models(
            default=served[0][1],
            named={name: each for names, each in served for name in names},
        )

    def apply(self, settings: Settings) -> None:
        """
        Serve the models of *settings* from now on.

        Raises:
            SettingsError: one cannot be made; all is as it was then.
        """
        wanted = list(_each(settings))
        known = {model.name: model for model in self.models}
        made = self._make([each for each in wanted if each[0] not in known])
        former, self.models = (
            self.models,
            [known.get(name) or made[name] for name, _, _ in wanted],
        )
        for name, table, own in wanted:
            if name in known:
                known[name].table = table
                known[name].apply(own)
            elif self._is_running:
                made[name].start()
        for model in former:
            if model not in self.models:
                self._take_out(model)
        self.on_change()

    def _make(self, wanted: Sequence[Wanted]) -> dict[str, ServedModel]:
        made: dict[str, ServedModel] = {}
        for name, table, own in wanted:
            try:
                made[name] = self.make(own, table)
            except SettingsError as error:
                for model in made.values():
                    self.forget(model.recorder)
                if table is None:
                    raise
                raise SettingsError(f"MODELS: [{name}]: {error}") from error
            made[name].on_change = self._changed
        return made

    def _changed(self) -> None:
        self.on_change()

    def start(self) -> None:
        """Begin to ask their servers for their limits."""
        self._is_running = True
        for model in self.models:
            model.start()

    def flush(self) -> None:
        """Send batches without waiting from now on: the proxy is going to stop."""
        for model in self.all:
            model.collector.flush()

    async def stop(self) -> None:
        """Send nothing more, and close the connections to all servers."""
        for model, look in list(self._leaving.items()):
            if look is not None:
                look.cancel()
            await model.stop()
        self._leaving.clear()
        for model in self.models:
            await model.stop()

    def _take_out(self, model: ServedModel) -> None:
        model.on_change = lambda: None
        self._leaving[model] = self.clock.callLater(LOOK_S, self._look, model)

    def _look(self, model: ServedModel) -> None:
        """Close *model* when it has answered all that it has accepted."""
        if not model.is_idle:
            self._leaving[model] = self.clock.callLater(LOOK_S, self._look, model)
            return
        self._leaving[model] = None
        closed = Deferred.fromCoroutine(model.stop())
        closed.addBoth(self._closed, model)

    def _closed(self, _outcome: Any, model: ServedModel) -> None:
        self._leaving.pop(model, None)
        self.forget(model.recorder)
        self._log.info("{name} is not served any more", name=model.name)

    # What the pages show

    def ask(self, path: bytes) -> Deferred[Answer]:
        """Ask all servers for their health; fires with the first good answer."""
        asked = [model.checks[path].ask() for model in self.models]
        return asked[0] if len(asked) == 1 else _first_good(asked)

    def is_full(self) -> int:
        """Return how many inputs wait if no model has room for another; else 0."""
        admissions = [model.collector.admission for model in self.models]
        if not all(each.is_full for each in admissions):
            return 0
        return sum(each.items for each in admissions)

    def report(self) -> str:
        """Return the diagnosis in a line for the log; empty if no calls came."""
        reports = [(model.name, model.status.report()) for model in self.models]
        return "; ".join(
            f"{name}: {said}" if name else said for name, said in reports if said
        )

    def list_servers(self) -> list[dict[str, Any]]:
        """Describe each server of each model."""
        return [
            {**each, "model": model.name}
            for model in self.models
            for each in model.upstream.servers() or [_only_server(model)]
        ]

    def drain(self, address: str, is_drained: bool) -> None:  # noqa: FBT001
        """Send nothing more to the servers at *address*, or again."""
        (self.drained.add if is_drained else self.drained.discard)(address)
        for model in self.models:
            model.upstream.drain(address, is_drained=is_drained)

    def document(self, since: int = 0, name: str = "") -> dict[str, Any]:
        """
        Return the status of a model and of the process.

        Args:
            since: the serial of the last batch that the reader has seen.
            name: of the model; the default one if there is none of this name.
        """
        models = self.models
        model = next((each for each in models if name in each.names), models[0])
        document = model.status.document(since)
        if model.table is not None:
            document["model"] = model.name
            document["models"] = [_summary(each) for each in models]
        return document


def _first_good(asked: Sequence[Deferred[Answer]]) -> Deferred[Answer]:
    """Return what fires with the first good answer, or with the first if none is."""
    first: Deferred[Answer] = Deferred()
    answers: list[Answer] = []

    def heard(answer: Answer) -> None:
        answers.append(answer)
        is_good = isinstance(answer, Response) and answer.status < SERVER_ERROR
        if not first.called and (is_good or len(answers) == len(asked)):
            first.callback(answer if is_good else answers[0])

    for each in asked:
        each.addCallback(heard)
    return first


def _only_server(model: ServedModel) -> dict[str, Any]:
    """Describe the server of a model that has but one."""
    upstream, budget = model.upstream, model.collector.budget
    return {
        "address": address_of(upstream.base_url),
        "state": upstream.state.value,
        "why": upstream.describe()["why"],
        "takes_part": True,
        "requests_in_flight": budget.batches_in_flight + model.relay.relayed,
        "inputs_in_flight": budget.items_in_flight,
    }


def _summary(model: ServedModel) -> dict[str, Any]:
    totals, admission = model.recorder.totals(), model.collector.admission
    return {
        "name": model.name,
        "names": model.names,
        "url": model.upstream.base_url,
        "state": model.upstream.state.value,
        "calls": totals.calls,
        "errors": totals.errors,
        "waiting_items": admission.items,
        "items_in_flight": model.collector.budget.items_in_flight,
    }


def _each(settings: Settings) -> Iterator[Wanted]:
    """Yield name, table and settings of each model; the only one has but settings."""
    if settings.models is None:
        yield "", None, settings
        return
    for table in settings.models.tables:
        yield table.name, table, settings_of(settings, table)
