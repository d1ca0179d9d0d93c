"""
Apply settings to a running proxy, when they are read again.

Keys and limits can change at any moment; for all else a line in the log asks for a
restart.
"""

from collections.abc import Callable, Sequence
from typing import ClassVar

import attrs
from attrs import define, field
from twisted.logger import Logger

from abproxy.configure import (
    CHANGEABLE,
    policy_for,
    read_again,
    server_limits,
    variables,
)
from abproxy.errors import SettingsError
from abproxy.served import ServedModel
from abproxy.settings.settings import Settings
from abproxy.web.app import ProxyApp
from abproxy.web.models import Models
from abproxy.web.server import ProxySite

__all__ = ["Configuration"]

OF_SITES = (
    "client_keep_alive_s",
    "max_body_bytes",
    "max_connections",
    "max_memory_bytes",
    "request_timeout_s",
)
"""Those that are limits of the HTTP server."""


@define(kw_only=True, eq=False)
class Configuration:
    """The settings in force, and the objects that they are applied to."""

    settings: Settings
    read: Callable[[], Settings] = field(repr=False)
    """Reads all settings again; raises SettingsError."""

    app: ProxyApp
    model: ServedModel
    sites: Callable[[], Sequence[ProxySite]] = field(default=tuple, repr=False)
    """Return the sites at all ports."""

    set_log_level: Callable[[str], None] = field(
        default=lambda _level: None, repr=False
    )
    _log: ClassVar[Logger] = Logger()

    def __attrs_post_init__(self) -> None:
        """Hear when calls have to be read in another way."""
        self.model.on_change = self.renew_policy

    def reload(self) -> None:
        """Read the settings again, and apply those that can change."""
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
        may_change = {name: changed[name] for name in CHANGEABLE & changed.keys()}
        self.apply(attrs.evolve(self.settings, **may_change))

    def apply(self, settings: Settings) -> None:
        """Apply *settings* from now on; batches in flight are not touched."""
        former, self.settings = self.settings, settings
        if former.log_level != settings.log_level:
            self.set_log_level(settings.log_level)
        self.model.apply(settings)
        self._apply_to_sites(former, settings)

    def renew_policy(self) -> None:
        """Read calls as settings and server ask for now."""
        models = Models(default=self.model.served())
        self.app.policy = policy_for(self.settings, models)

    def _say(self, message: str, names: set[str] | frozenset[str]) -> None:
        if names:
            self._log.warn(message, names=variables(names))

    def _apply_to_sites(self, former: Settings, settings: Settings) -> None:
        # Not for each change: it may ask the system for more files, and log why not.
        if any(getattr(former, name) != getattr(settings, name) for name in OF_SITES):
            limits = server_limits(settings, self.app)
            for site in self.sites():
                site.set_limits(limits)
