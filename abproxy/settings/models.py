"""
Several models, each with settings of its own: a table for each in a TOML file.

A setting is written there as in a `.env` file, in small letters, and parsed by the
same parser.  What a table does not say is what the settings of the proxy say.
"""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from attrs import evolve, field, frozen

from abproxy.errors import SettingsError
from abproxy.settings.key_files import OF_UPSTREAM
from abproxy.settings.sources import find_typos

__all__ = ["KEY_FILE", "ModelTable", "ModelsFile", "read_models"]

NAMES, MODEL, DEFAULT = "names", "model", "default"
"""Members of a table that are no settings."""

SHORT: Mapping[str, str] = {
    "dialect": "upstream_dialect",
    "key": "inference_service_key",
    "key_file": "inference_service_key_file",
    "url": "inference_service_url",
    "urls": "inference_service_url",
}
"""Short names of settings."""

KEY, KEY_FILE = "inference_service_key", "inference_service_key_file"
"""What the key of a model's server, and the file with it, are called in `texts`."""

LONGEST_NAME = 200

Parsers = Mapping[str, Callable[[str], Any]]


@frozen(kw_only=True)
class ModelTable:
    """One model in the file."""

    name: str
    aliases: tuple[str, ...] = ()
    """Other names by which it is asked for."""

    known_as: str | None = None
    """What its server calls it, if that is not its name."""

    is_default: bool = False
    """Whether it answers what names no model."""

    texts: Mapping[str, str] = field(factory=dict, repr=False)
    """Its settings, each as the text that its parser reads, keys among them."""

    @property
    def names(self) -> tuple[str, ...]:
        """Return all its names."""
        return (self.name, *self.aliases)

    def with_key(self) -> "ModelTable":
        """
        Return it with the key that is in its file now, if it names a file.

        Raises:
            SettingsError: the file cannot be used.
        """
        path = self.texts.get(KEY_FILE)
        if path is None:
            return self
        return evolve(self, texts={**self.texts, KEY: OF_UPSTREAM.read(path)})


@frozen(kw_only=True)
class ModelsFile:
    """The tables of a file, the default one first."""

    path: str
    tables: tuple[ModelTable, ...]

    def __str__(self) -> str:
        """Return the path: there are secrets in the tables."""
        return self.path


def read_models(path: str, parsers: Parsers) -> ModelsFile:
    """
    Read the file at *path*.

    Args:
        path: where it is.
        parsers: those of the settings that a table may have, by their names.

    Raises:
        SettingsError: it cannot be read, or a table has something wrong in it.
    """
    tables = [_table(path, *each, parsers) for each in _load(path).items()]
    if not tables:
        raise SettingsError(f"MODELS: there is no model in {path}")
    _refuse_doubles(path, tables)
    tables.sort(key=lambda table: not table.is_default)
    if sum(table.is_default for table in tables) > 1:
        raise SettingsError(f"MODELS: {path} has more than one default")
    tables[0] = evolve(tables[0], is_default=True)
    return ModelsFile(path=path, tables=tuple(tables))


def _load(path: str) -> dict[str, Any]:
    import tomllib  # noqa: PLC0415  only where there is such a file

    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        why = error.strerror or str(error)
    except UnicodeDecodeError:
        why = "it is not text"
    except RecursionError:
        why = "it is nested too deep"
    except ValueError as error:  # also of a number with too many digits
        why = str(error)
    raise SettingsError(f"MODELS: cannot use {path}: {why}")


def _refuse_doubles(path: str, tables: list[ModelTable]) -> None:
    owners: dict[str, str] = {}
    for table in tables:
        for name in table.names:
            other = owners.setdefault(name, table.name)
            if other != table.name or table.names.count(name) > 1:
                raise SettingsError(
                    f"MODELS: {path}: [{table.name}] {NAMES}: {name!r} is a name of "
                    f"[{other}] already"
                )


def _table(path: str, name: str, members: Any, parsers: Parsers) -> ModelTable:
    where = f"MODELS: {path}: [{name}]"
    if not isinstance(members, dict):
        raise SettingsError(
            f"MODELS: {path}: {name} is in no table; write [NAME] in a line before it"
        )
    try:
        _check_name(name)
    except ValueError as error:
        raise SettingsError(f"{where}: {error}") from None
    found: dict[str, Any] = {"texts": {}}
    for member, value in members.items():
        if isinstance(value, dict) and member not in parsers:
            raise SettingsError(
                f"MODELS: {path}: a name with a dot needs quotes, "
                f'like ["{name}.{member}"]'
            )
        try:
            _read(member, value, parsers, found)
        except ValueError as error:
            raise SettingsError(f"{where} {member}: {error}") from error
    texts = found["texts"]
    if KEY in texts and KEY_FILE in texts:
        raise SettingsError(f"{where} has both key and key_file; keep one of them")
    try:
        return ModelTable(name=name, **found).with_key()
    except SettingsError as error:
        raise SettingsError(f"{where} key_file: {error}") from error


def _read(member: str, value: Any, parsers: Parsers, found: dict[str, Any]) -> None:
    if member == NAMES:
        found["aliases"] = tuple(map(_check_name, _strings(value)))
    elif member == MODEL:
        found["known_as"] = _check_name(value)
    elif member == DEFAULT:
        if not isinstance(value, bool):
            raise ValueError("expected true or false")
        found["is_default"] = value
    else:
        setting = SHORT.get(member, member)
        if setting in found["texts"]:
            raise ValueError("it is set twice")
        if setting not in parsers:
            raise ValueError(_unknown(member, {*parsers, *SHORT, NAMES, MODEL}))
        text = _text(setting, value)
        value = parsers[setting](text)
        # A path counts from where the process was started, and must go on to do so.
        found["texts"][setting] = value if isinstance(value, str) else text


def _unknown(member: str, known: Collection[str]) -> str:
    written = {name.upper(): name for name in known}
    meant = [written[name] for _, name in find_typos([member.lower()], written.keys())]
    if meant:
        return f"no setting of a model; {meant[0]} is"
    return "no setting of a model"


def _text(setting: str, value: Any) -> str:
    """Return *value* as it would be written in a `.env` file."""
    if isinstance(value, list):
        between = "\n" if setting == "upstream_headers" else ","
        return between.join(_strings(value))
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str | int | float) or value == "":
        raise ValueError("expected text, a number, true, false, or a list of texts")
    return str(value)


def _strings(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ValueError("expected a list of texts")
    return value


def _check_name(name: Any) -> str:
    if not isinstance(name, str) or not name.strip() or not name.isprintable():
        raise ValueError("expected visible text")
    if len(name) > LONGEST_NAME:
        raise ValueError(f"expected {LONGEST_NAME} characters at most")
    return name
