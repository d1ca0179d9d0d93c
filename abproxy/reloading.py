"""
Settings that may change while the proxy runs, and how they reach their rooms.

Keys and limits are safe to change at any moment; for everything else a line
in the log says that it needs a restart.
"""

from collections.abc import Callable
from typing import ClassVar

import attrs
from attrs import define, field
from twisted.logger import Logger

from abproxy.batching.collector import BatchCollector
from abproxy.batching.concurrency import Limit
from abproxy.chosen import (
    keys_for,
    patience_for,
    policy_for,
    slots_for,
)
from abproxy.errors import SettingsError
from abproxy.limits import limits_for
from abproxy.settings import Settings
from abproxy.upstream.discovery import ServerInfo
from abproxy.web.app import ProxyApp

__all__ = ["CHANGEABLE", "Reloading", "read_again"]

CHANGEABLE = frozenset(
    {
        "api_keys",
        "budget",
        "bulk_api_keys",
        "call_timeout_s",
        "connect_patience_s",
        "max_batch_bytes",
        "max_batch_calls",
        "max_batch_inputs",
        "max_wait_ms",
        "max_waiting_bytes",
        "max_waiting_inputs",
        "max_waiting_inputs_of_one",
        "oversize",
        "overload_patience_s",
        "packing",
        "rate_limit",
        "slots",
    }
)
"""Settings that can change without a restart."""


def read_again(read: Callable[[], Settings], current: Settings) -> Settings:
    """
    Read the settings that shall follow the *current* ones.

    Raises:
        SettingsError: they cannot be used, or would open a closed door, which is
            more often a file that was lost than what somebody wants.
    """
    wanted = read()
    if keys_for(current).accepted and not keys_for(wanted).accepted:
        raise SettingsError(
            "no key is left in API_KEY or BULK_API_KEY, and a reload does not open a "
            "closed door; set a key, or restart to ask for none"
        )
    return wanted


@define(kw_only=True, eq=False)
class Reloading:
    """The settings in force."""

    settings: Settings
    read: Callable[[], Settings] = field(repr=False)
    """Read all settings anew; raises SettingsError."""

    app: ProxyApp
    collector: BatchCollector
    facts: Callable[[], ServerInfo] = field(repr=False)
    make_limit: Callable[[Settings], Limit] = field(repr=False)
    _log: ClassVar[Logger] = Logger()

    def reload(self) -> None:
        """Read the settings again and go by those that may change."""
        try:
            wanted = read_again(self.read, self.settings)
        except SettingsError as error:
            self._log.error("Settings stay as they are: {error}", error=error)
            return
        names = [each.name for each in attrs.fields(Settings)]
        changed = {
            name: getattr(wanted, name)
            for name in names
            if getattr(wanted, name) != getattr(self.settings, name)
        }
        if not changed:
            self._log.info("Settings read again: nothing has changed")
        self._say("Settings changed: {names}", CHANGEABLE.intersection(changed))
        self._say("Settings need a restart: {names}", changed.keys() - CHANGEABLE)
        self._change({name: changed[name] for name in CHANGEABLE & changed.keys()})

    def learn(self, facts: ServerInfo) -> None:
        """Settle the limits anew: the upstream says something else of itself."""
        limits = limits_for(self.settings, facts)
        self.app.policy = policy_for(self.settings, facts)
        self.collector.learn(limits.caps, limits.budget)

    def _say(self, message: str, names: set[str] | frozenset[str]) -> None:
        if names:
            self._log.warn(message, names=", ".join(sorted(names)))

    def _change(self, changed: dict[str, object]) -> None:
        was_fixed = self.settings.budget is not None
        self.settings = attrs.evolve(self.settings, **changed)  # type: ignore[arg-type]
        if was_fixed != (self.settings.budget is not None):
            self.collector.budget.limit = self.make_limit(self.settings)
        if "slots" in changed:
            self.collector.budget.slots = slots_for(self.settings)
        self._go_by(self.settings)
        self.learn(self.facts())

    def _go_by(self, settings: Settings) -> None:
        app, collector = self.app, self.collector
        app.policy = policy_for(settings, self.facts())
        app.relay.connect_patience_s = settings.connect_patience_s
        collector.max_wait_s = settings.max_wait_ms / 1000
        collector.splits = settings.oversize == "split"
        collector.packs = settings.packing
        collector.call_timeout_s = settings.call_timeout_s
        collector.patience = patience_for(settings)
        collector.room.max_items = settings.max_waiting_inputs
        collector.room.max_size = settings.max_waiting_bytes
        collector.room.max_items_of_one = settings.max_waiting_inputs_of_one
