"""
Files with keys, looked at again while the proxy runs.

Each is read by its path, and not only when the path looks newer: Kubernetes replaces
a whole folder at once, by a symbolic link.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import attrs
from attrs import define, field
from twisted.logger import Logger

from abproxy.errors import SettingsError
from abproxy.settings.key_files import KEY_FILES
from abproxy.settings.models import ModelTable
from abproxy.settings.settings import Settings

__all__ = ["KeyWatch"]


@define(kw_only=True, eq=False)
class KeyWatch:
    """Applies keys when their files change; one that cannot be used changes nothing."""

    settings: Callable[[], Settings] = field(repr=False)
    """Returns the settings in force."""

    apply: Callable[[Settings], None] = field(repr=False)
    """Applies settings that differ from those in their keys."""

    _wrong: dict[str, str] = field(init=False, factory=dict)
    """Why a file could not be used when it was looked at last."""

    _log: ClassVar[Logger] = Logger()

    def look(self) -> None:
        """Apply the keys that are in the files now, if they can be used."""
        settings = self.settings()
        changed: dict[str, Any] = {}
        for file in KEY_FILES:
            path = getattr(settings, file.name)
            if path is None:
                self._wrong.pop(file.variable, None)
                continue
            try:
                keys = file.read(path)
            except SettingsError as error:
                self._note_wrong(file.variable, str(error))
                continue
            was_wrong = self._wrong.pop(file.variable, None) is not None
            if keys != getattr(settings, file.of):
                changed[file.of] = keys
                self._log.warn("{file} has changed, and is used", file=file.variable)
            elif was_wrong:
                self._log.info("{file} can be used again", file=file.variable)
        if settings.models is not None:
            tables = tuple(map(self._with_key, settings.models.tables))
            if tables != settings.models.tables:
                changed["models"] = attrs.evolve(settings.models, tables=tables)
        if changed:
            self.apply(attrs.evolve(settings, **changed))

    def _with_key(self, table: ModelTable) -> ModelTable:
        """Return *table* with the key that is in its file now, if it can be used."""
        name = f"key_file of model {table.name}"
        try:
            new = table.with_key()
        except SettingsError as error:
            self._note_wrong(name, f"[{table.name}] {error}")
            return table
        was_wrong = self._wrong.pop(name, None) is not None
        if new != table:
            self._log.warn("{file} has changed, and is used", file=name)
        elif was_wrong:
            self._log.info("{file} can be used again", file=name)
        return new

    def _note_wrong(self, variable: str, why: str) -> None:
        if self._wrong.get(variable) != why:
            self._wrong[variable] = why
            self._log.error("The former keys stay: {why}", why=why)
