"""
Apply settings to a running proxy, when they are read again.

Keys and limits can change at any moment; for all else a line in the log asks for a
restart.  Of several models one that is new is made, and one that is not there any
more is taken out.
"""

from collections.abc import Callable, Collection, Sequence
from typing import ClassVar

import attrs
from attrs import define, field, frozen
from twisted.logger import Logger

from abproxy.configure import keys_for, policy_for, server_limits
from abproxy.errors import SettingsError
from abproxy.models.serving import Serving
from abproxy.settings.models import ModelTable
from abproxy.settings.settings import Settings, member_of, of_models, settings_of
from abproxy.settings.sources import variable
from abproxy.web.app import ProxyApp
from abproxy.web.server import ProxySite

__all__ = ["CHANGEABLE", "Change", "Configuration", "merge", "read_again"]

CHANGEABLE = frozenset(
    {
        "admin_key_file",
        "admin_keys",
        "api_key_file",
        "api_keys",
        "budget",
        "bulk_api_key_file",
        "bulk_api_keys",
        "call_deadline_s",
        "call_timeout_s",
        "client_keep_alive_s",
        "connect_patience_s",
        "drain_delay_s",
        "drain_timeout_s",
        "hedge_after",
        "log_level",
        "max_batch_bytes",
        "max_batch_calls",
        "max_batch_inputs",
        "max_batch_tokens",
        "max_body_bytes",
        "max_call_inputs",
        "max_connections",
        "max_memory_bytes",
        "max_wait_ms",
        "max_waiting_bytes",
        "max_waiting_inputs",
        "max_waiting_inputs_of_one",
        "oversize",
        "overload_patience_s",
        "packing",
        "rate_limit",
        "request_timeout_s",
        "resolve_every_s",
        "share_alone",
        "share_apart",
        "share_ignore",
        "slots",
        "trusted_proxies",
        "upstream_key",
        "upstream_key_file",
        "upstream_requests_per_minute",
        "upstream_timeout_s",
        "upstream_tokens_per_minute",
    }
)
"""Settings that can change without a restart."""

OF_SITES = (
    "client_keep_alive_s",
    "max_body_bytes",
    "max_connections",
    "max_memory_bytes",
    "request_timeout_s",
)
"""Those that are limits of the HTTP server."""


def read_again(read: Callable[[], Settings], current: Settings) -> Settings:
    """
    Return the settings that are to replace the *current* ones.

    Raises:
        SettingsError: they cannot be used, or would stop asking for keys, which is
            more often a lost file than the intention.
    """
    wanted = read()
    if keys_for(current).accepted and not keys_for(wanted).accepted:
        raise SettingsError(
            "no key is left in API_KEY or BULK_API_KEY, and a reload does not turn "
            "keys off; set a key, or restart without keys"
        )
    return wanted


@frozen(kw_only=True)
class Change:
    """The settings from now on, and what the log says of them."""

    settings: Settings = field(repr=False)
    made: list[str]
    """What changes."""

    left: list[str]
    """What would need a restart."""


def merge(current: Settings, wanted: Settings) -> Change:
    """Return what of the *wanted* settings can take the place of the *current* ones."""
    changed = _differing(current, wanted)
    may = changed & CHANGEABLE
    new = {name: getattr(wanted, name) for name in may}
    made, left = _line("Settings changed", may), []
    if current.models is not None and wanted.models is not None:
        changed -= {"models"}
        new["models"] = wanted.models
        settings = attrs.evolve(current, **new)
        tables = []
        former = {table.name: table for table in current.models.tables}
        for table in wanted.models.tables:
            tables.append(_merge_table(former.get(table.name, table), table))
            if table.name in former:
                before = settings_of(settings, former.pop(table.name))
                after = settings_of(settings, tables[-1])
                asked = settings_of(settings, table)
                model = f"Model {table.name}: settings"
                made += _line(f"{model} changed", _differing(before, after))
                left += _line(f"{model} need a restart", _differing(after, asked))
            else:
                made.append(f"Model added: {table.name}")
        made += [f"Model removed: {name}" for name in former]
        new["models"] = attrs.evolve(wanted.models, tables=tuple(tables))
    return Change(
        settings=attrs.evolve(current, **new),
        made=made,
        left=_line("Settings need a restart", changed - CHANGEABLE) + left,
    )


def _differing(one: Settings, other: Settings) -> set[str]:
    names = [each.name for each in attrs.fields(Settings)]
    return {name for name in names if getattr(one, name) != getattr(other, name)}


def _merge_table(former: ModelTable, table: ModelTable) -> ModelTable:
    """Return *table* with the settings of the *former* one that cannot change."""
    may = {member_of(each) for each in of_models() if each.name in CHANGEABLE}
    texts = {name: text for name, text in former.texts.items() if name not in may}
    texts |= {name: text for name, text in table.texts.items() if name in may}
    return attrs.evolve(table, texts=texts)


def _line(what: str, names: set[str]) -> list[str]:
    return [f"{what}: {_variables(names)}"] if names else []


def _variables(fields: Collection[str]) -> str:
    """Return the names by which some *fields* of Settings are set, in one line."""
    named = (each for each in attrs.fields(Settings) if each.name in fields)
    return ", ".join(variable(each.metadata["option"]) for each in named)


@define(kw_only=True, eq=False)
class Configuration:
    """The settings in force, and the objects that they are applied to."""

    settings: Settings
    read: Callable[[], Settings] = field(repr=False)
    """Reads all settings again; raises SettingsError."""

    app: ProxyApp
    serving: Serving
    sites: Callable[[], Sequence[ProxySite]] = field(default=tuple, repr=False)
    """Return the sites at all ports."""

    set_log_level: Callable[[str], None] = field(
        default=lambda _level: None, repr=False
    )
    _log: ClassVar[Logger] = Logger()

    def __attrs_post_init__(self) -> None:
        """Hear when calls have to be read in another way."""
        self.serving.on_change = self.renew_policy

    def reload(self) -> None:
        """Read the settings again, and apply those that can change."""
        try:
            wanted = read_again(self.read, self.settings)
        except SettingsError as error:
            self._log.error("Settings stay as they are: {error}", error=error)
            return
        change = merge(self.settings, wanted)
        if wanted == self.settings:
            self._log.info("Settings read again: nothing has changed")
        try:
            self.apply(change.settings)
        except SettingsError as error:
            self._log.error("Settings stay as they are: {error}", error=error)
            return
        for line in (*change.made, *change.left):
            self._log.warn("{line}", line=line)

    def apply(self, settings: Settings) -> None:
        """
        Apply *settings* from now on; batches in flight are not touched.

        Raises:
            SettingsError: a new model cannot be made; all is as it was then.
        """
        former = self.settings
        self.serving.apply(settings)
        self.settings = settings
        if former.log_level != settings.log_level:
            self.set_log_level(settings.log_level)
        self.renew_policy()
        self._apply_to_sites(former, settings)

    def renew_policy(self) -> None:
        """Read calls as settings and server ask for now."""
        self.app.policy = policy_for(self.settings, self.serving.table)

    def _apply_to_sites(self, former: Settings, settings: Settings) -> None:
        # Not for each change: it may ask the system for more files, and log why not.
        if any(getattr(former, name) != getattr(settings, name) for name in OF_SITES):
            limits = server_limits(settings, self.app)
            for site in self.sites():
                site.set_limits(limits)
