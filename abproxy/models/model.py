"""
One model that is served: all that is its own, from its settings to its server.

It is made by one function from one Settings.  When these change, or the inference
server says something else of itself, the running parts are told.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import define, field

from abproxy.batching.account import Accounts
from abproxy.batching.admission import Admission
from abproxy.batching.collector import BatchCollector
from abproxy.batching.concurrency import AdaptiveLimit, Budget, FixedLimit, Limit
from abproxy.batching.ladder import Turn
from abproxy.batching.slots import make_slots
from abproxy.configure import (
    credentials_for,
    keys_of_rows,
    reader_for,
    retry_timeouts_for,
    reuse_for,
    shows_reuse,
)
from abproxy.http.messages import Send
from abproxy.models.limits import (
    Limits,
    limits_for_all,
    limits_in_force,
    permits_for,
    rates_for,
)
from abproxy.models.servers import make_servers
from abproxy.reuse.layers import Layers, make_layers
from abproxy.settings.models import ModelTable
from abproxy.settings.settings import Settings, list_settings
from abproxy.telemetry.advice import LimitsInForce
from abproxy.telemetry.gauges import ProcessGauges
from abproxy.telemetry.recorder import Recorder
from abproxy.telemetry.setup import Telemetry
from abproxy.telemetry.status import Status, make_status
from abproxy.tuning import wall_clock
from abproxy.upstream.client import Upstream
from abproxy.upstream.health import HealthCheck, make_checks
from abproxy.upstream.joining import Joining, Naming
from abproxy.upstream.server_info import ServerInfo
from abproxy.upstream.tokens import TokenCounter
from abproxy.web.models import Served
from abproxy.web.relay import Relay

if TYPE_CHECKING:
    from abproxy.reuse.redis import RedisStore
    from abproxy.upstream.fleet.fleet import Fleet

__all__ = ["ServedModel", "make_model"]


@define(kw_only=True, eq=False)
class ServedModel:
    """One model: its server, its queue, and what is between that and the calls."""

    settings: Settings
    """Those in force for it."""

    table: ModelTable | None = None
    """What says that it is one of several; None if it is the only one."""

    reactor: Any = field(repr=False)
    upstream: "Upstream | Fleet"
    collector: BatchCollector
    joining: Joining = field(repr=False)
    layers: Layers
    relay: Relay
    turn: Turn = field(repr=False)
    """Says when other numbers of slots may be tried."""

    recorder: Recorder = field(repr=False)
    status: Status = field(repr=False)
    checks: Mapping[bytes, HealthCheck] = field(repr=False)
    """Ask its server for its health, by the path of the page."""

    created: int
    """Since when it is served, in seconds since 1970."""

    on_change: Callable[[], None] = field(default=lambda: None, repr=False)
    """Called when its calls may have to be read in another way."""

    @property
    def name(self) -> str:
        """Its name; empty for the only one."""
        return self.table.name if self.table else ""

    @property
    def names(self) -> tuple[str, ...]:
        """All its names; the only one needs none."""
        return self.table.names if self.table else ()

    @property
    def is_idle(self) -> bool:
        """Whether no call waits or is in flight."""
        collector = self.collector
        waiting = collector.admission.items + collector.admission.rest_items
        return not (waiting or collector.budget.batches_in_flight)

    @property
    def coming_bytes(self) -> int:
        """Bytes of answers that are not whole yet."""
        collected = self.collector.admission.collected.size
        return collected + self.upstream.unfinished_bytes

    def served(self) -> Served:
        """Return it as requests reach it now."""
        collector = self.collector
        known_as = self.table.known_as if self.table else None
        return Served(
            name=self.name,
            created=self.created,
            known_as=known_as or self.name,
            reader=reader_for(
                self.settings,
                self.info,
                takes=collector.takes,
                observer=collector.observer,
                # A server of several models has to hear which one is meant.
                model=known_as or self.info.model or self.name,
            ),
            compute=self.layers.submit,
            relay=self.relay,
        )

    @property
    def info(self) -> ServerInfo:
        """What its server has said of itself."""
        return self.upstream.info

    def limits_in_force(self) -> LimitsInForce:
        """Return what bounds its batches now."""
        most = self.info.max_batch_inputs
        return limits_in_force(self.settings, self.collector.caps.items, most)

    def apply(self, settings: Settings) -> None:
        """Apply *settings* from now on; batches in flight are not touched."""
        former, self.settings = self.settings, settings
        budget = self.collector.budget
        if (former.budget is None) != (settings.budget is None):
            budget.limit = _limit(settings, self.reactor, self._limits)
        if former.slots != settings.slots:
            budget.slots = make_slots(settings.slots, self.turn)
        self._apply_to_collector(settings)
        _apply_to_servers(self.upstream, settings)
        self.upstream.use(credentials_for(settings))
        self.upstream.set_timeout(settings.upstream_timeout_s)
        self.relay.timeout_s = settings.upstream_timeout_s
        self.relay.connect_patience_s = settings.connect_patience_s
        self.learn(self.info)

    def learn(self, info: ServerInfo) -> None:
        """Apply what its server reports now."""
        limits = self._limits
        self.on_change()
        self.collector.learn(limits.caps, limits.budget, limits.servers)
        keys = keys_of_rows(self.settings, info)
        self.layers.learn(keys, shows=shows_reuse(self.settings))

    def resize(self) -> None:
        """Keep as much in flight as the servers take in that take part now."""
        limits, collector = self._limits, self.collector
        if limits.caps != collector.caps:
            collector.learn(limits.caps, limits.budget, limits.servers)
        else:
            collector.budget.resize(limits.budget, limits.caps.items, limits.servers)
            collector.dispatch()

    @property
    def _limits(self) -> Limits:
        return limits_for_all(self.settings, self.upstream.infos)

    def start(self) -> None:
        """Begin to ask its server for its limits."""
        self.upstream.start()

    async def stop(self) -> None:
        """Send nothing more, and close what is open."""
        self.collector.stop()
        self.joining.stop()
        await self.upstream.stop()

    def _apply_to_collector(self, settings: Settings) -> None:
        collector = self.collector
        collector.max_wait_s = settings.max_wait_ms / 1000
        collector.splits = settings.oversize == "split"
        collector.packs = settings.packing
        collector.call_timeout_s = settings.call_timeout_s
        collector.retry_timeouts = retry_timeouts_for(settings)
        collector.pace.use(rates_for(settings))
        collector.admission.max_items = settings.max_waiting_inputs
        collector.admission.max_size = settings.max_waiting_bytes
        collector.admission.max_items_of_one = settings.max_waiting_inputs_of_one
        if self.layers.memory is not None:
            self.layers.memory.store.max_size = settings.cache_bytes


def make_model(  # noqa: PLR0913
    settings: Settings,
    reactor: Any,
    telemetry: Telemetry,
    turn: Turn,
    *,
    process: ProcessGauges,
    table: ModelTable | None = None,
    accounts: Accounts | None = None,
    drained: set[str] | None = None,
    rows: "RedisStore | None" = None,
    base_url: str | None = None,
) -> ServedModel:
    """
    Return the model that *settings* describe.

    Args:
        settings: those of this model.
        reactor: clock and network.
        telemetry: hears of it.
        turn: says when other numbers of slots may be tried.
        process: the figures of the process.
        table: says that it is one of several.
        accounts: what is known of accounts at hosted APIs, which other models have too.
        drained: addresses to which nothing is sent, as the operator wants it.
        rows: remembers rows for several proxies.
        base_url: of its server, if that is not the one in the settings.

    Raises:
        SettingsError: files for TLS cannot be used.
    """

    def learn(info: ServerInfo) -> None:
        # It is called when the proxy runs, and the model is there.
        model.learn(info)

    def resize() -> None:
        model.resize()

    upstream = make_servers(
        settings,
        reactor,
        telemetry,
        base_url,
        is_one_of_several=table is not None,
        drained=drained if drained is not None else set(),
    )
    _apply_to_servers(upstream, settings)
    joining = Joining(
        clock=reactor, strict=settings.model_strict, observer=telemetry.observer
    )
    collector = _collector(
        settings, reactor, upstream, telemetry, turn, joining, accounts
    )
    layers = make_layers(
        reuse_for(settings),
        collector,
        reactor,
        shared=rows,
        is_certain=lambda: upstream.is_certain,
        observer=telemetry.observer,
    )

    def limits() -> LimitsInForce:
        return model.limits_in_force()

    recorder = telemetry.recorder
    status = make_status(
        recorder,
        collector,
        layers,
        upstream,
        process=process,
        settings=lambda: list_settings(model.settings),
        limits=limits,
    )
    model = ServedModel(
        settings=settings,
        table=table,
        recorder=recorder,
        status=status,
        checks=make_checks(reactor, upstream),
        created=int(wall_clock(reactor)()),
        reactor=reactor,
        upstream=upstream,
        collector=collector,
        joining=joining,
        layers=layers,
        relay=_relay(settings, reactor, upstream, telemetry),
        turn=turn,
    )
    # Only now are there those to whom it can report.
    upstream.report_to(learn, resize)
    return model


def _apply_to_servers(upstream: "Upstream | Fleet", settings: Settings) -> None:
    upstream.apply(
        permits_of=partial(permits_for, settings),
        hedge_after=settings.hedge_after,
        resolve_every_s=settings.resolve_every_s,
    )


def _collector(  # noqa: PLR0913, PLR0917
    settings: Settings,
    reactor: Any,
    upstream: "Upstream | Fleet",
    telemetry: Telemetry,
    turn: Turn,
    joining: Joining,
    accounts: Accounts | None,
) -> BatchCollector:
    limits, rates = limits_for_all(settings, upstream.infos), rates_for(settings)
    if accounts is None or not rates.is_hosted:
        # Other servers have no accounts, and what one states is of one model.
        accounts = Accounts()
    # A request to /tokenize is not a request for a batch, nor counted as one.
    counter = TokenCounter(
        send=partial(upstream.send, is_batch=False),
        info=lambda: upstream.info,
    )
    send: Send = upstream.send
    if settings.model_header:
        send = Naming(compute=send, clock=reactor).send
    return BatchCollector(
        clock=reactor,
        send=send,
        caps=limits.caps,
        budget=Budget(
            limit=_limit(settings, reactor, limits),
            slots=make_slots(settings.slots, turn),
            servers=limits.servers,
            left_out=upstream.left_out,
        ),
        admission=Admission(
            clock=reactor,
            max_items=settings.max_waiting_inputs,
            max_size=settings.max_waiting_bytes,
            max_items_of_one=settings.max_waiting_inputs_of_one,
        ),
        max_wait_s=settings.max_wait_ms / 1000,
        splits=settings.oversize == "split",
        packs=settings.packing,
        is_alive=upstream.is_alive,
        count=counter.count if settings.usage == "exact" else None,
        may_join=joining.may_join,
        call_timeout_s=settings.call_timeout_s,
        retry_timeouts=retry_timeouts_for(settings),
        rates=rates,
        accounts=accounts,
        observer=telemetry.observer,
    )


def _limit(settings: Settings, reactor: Any, limits: Limits) -> Limit:
    batch = limits.caps.items * limits.servers
    if settings.budget is not None:
        return FixedLimit(ceiling=limits.budget, batch=batch)
    return AdaptiveLimit(clock=reactor, ceiling=limits.budget, batch=batch)


def _relay(
    settings: Settings, reactor: Any, upstream: "Upstream | Fleet", telemetry: Telemetry
) -> Relay:
    relay = Relay(
        clock=reactor,
        trace=telemetry.trace_relayed,
        timeout_s=settings.upstream_timeout_s,
        connect_patience_s=settings.connect_patience_s,
    )
    if not isinstance(upstream, Upstream):
        relay.choose = upstream.choose
    else:
        relay.agent, relay.base_url = upstream.agent, upstream.base_url
        relay.close_idle = upstream.close_idle
    return relay
