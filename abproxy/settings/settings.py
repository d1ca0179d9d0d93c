"""
All settings, checked once when they are read.

The command line wins over the environment, which wins over the `.env` file.
Each setting is declared in one place, in the module of its topic, with its
option, unit, default and meaning; `--help` and the settings page are made from
it, `.env.example` and the README are tested against it.
"""

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import attrs
from attrs import frozen
from twisted.logger import Logger

from abproxy.errors import SettingsError
from abproxy.settings import parsers
from abproxy.settings.access import Access
from abproxy.settings.batching import Batching
from abproxy.settings.key_files import KEY_FILES
from abproxy.settings.limits import Limits
from abproxy.settings.listening import FAST_PATHS, Listening
from abproxy.settings.models import ModelsFile, ModelTable, read_models
from abproxy.settings.reuse import Reuse
from abproxy.settings.sources import Sources, find_typos, variable
from abproxy.settings.telemetry import Telemetry
from abproxy.settings.upstream import Upstream

__all__ = [
    "FAST_PATHS",
    "Settings",
    "default_of",
    "explain",
    "list_settings",
    "member_of",
    "of_models",
    "settings_from",
    "settings_of",
    "shown",
    "table_of",
]

OF_MODELS = frozenset(
    {
        *(each.name for base in (Upstream, Batching) for each in attrs.fields(base)),
        "cache_bytes",
        "cache_epoch",
        "cache_scope",
        "cache_ttl_s",
        "call_timeout_s",
        "dedupe",
        "max_answer_bytes",
        "max_call_inputs",
        "max_waiting_bytes",
        "max_waiting_inputs",
        "max_waiting_inputs_of_one",
    }
) - {"embedded", "embedded_model", "models"}
"""The settings that each of several models may have of its own."""

REPLACED: Mapping[str, tuple[str, Callable[[str], Any], Any]] = {
    "express": ("server", parsers.yes_or_no, False),
    "write-at-once": ("write", parsers.yes_or_no, False),
    "poll-directly": ("poll", parsers.yes_or_no, False),
    "upstream-client": ("client", parsers.one_of("fast", "treq"), "treq"),
}
"""Options of former versions: the fast path of each, its parser, and its off value."""

ANY = frozenset({"0.0.0.0", "::"})  # noqa: S104  it is only compared
LOOPBACK = frozenset({"127.0.0.1", "::1"})
"""Addresses that stand for all of this machine, and those that it has for itself."""

_log = Logger()


@frozen(kw_only=True, slots=False)
class Settings(Telemetry, Limits, Access, Reuse, Batching, Upstream, Listening):
    """
    All settings, with units in their names.

    attrs lists the fields of the last base first, so the bases stand in the
    reverse of the order in which `--help` and the README show their topics.
    """

    @property
    def has_tls(self) -> bool:
        """Return whether clients speak TLS to the proxy."""
        return self.tls_cert is not None or self.port.startswith("ssl:")

    @property
    def keys_are_apart(self) -> bool:
        """Return whether no client has a key of an operator."""
        return not {*self.admin_keys} & {*self.api_keys, *self.bulk_api_keys}

    @property
    def has_tls_upstream(self) -> bool:
        """Return whether an inference server is to be asked by TLS."""
        urls = [each.lower() for each, _ in parsers.weighted(self.upstream_url)]
        return any(each.startswith("https:") for each in urls)


def explain(setting: "attrs.Attribute[Any]") -> str:
    """Return the meaning of a *setting* with its unit and default, in one line."""
    about = setting.metadata
    unit = f"{about['unit']}; " if about["unit"] else ""
    return f"{about['meaning']} [{unit}default: {default_of(setting)}]"


def default_of(setting: "attrs.Attribute[Any]") -> str:
    """Return the default of a *setting*, written as in a `.env` file."""
    return shown(setting, setting.default)


def shown(setting: "attrs.Attribute[Any]", value: Any) -> str:
    """Return a *value* as in a `.env` file; of a secret only whether there is one."""
    if value is None or value == ():
        return "none"
    if isinstance(value, frozenset):
        return parsers.listed(value, FAST_PATHS)
    if setting.name == "upstream_headers":
        return ", ".join(name for name, _ in value)
    if not setting.repr:
        return f"{len(value)} keys" if isinstance(value, tuple) else "set"
    if isinstance(value, tuple):
        return ",".join(value)
    return f"{value:g}" if isinstance(value, float) else str(value).lower()


def list_settings(settings: Settings) -> list[dict[str, Any]]:
    """Return all *settings* for the status; of secrets only whether there are any."""
    return [
        {
            "name": variable(each.metadata["option"]),
            "value": shown(each, getattr(settings, each.name)),
            "default": default_of(each),
            "unit": each.metadata["unit"],
            "meaning": each.metadata["meaning"],
        }
        for each in attrs.fields(Settings)
    ]


def settings_from(
    options: Mapping[str, Any], environ: Mapping[str, str], env_file: Mapping[str, str]
) -> Settings:
    """
    Read each setting from the first source that has it.

    An empty value counts as none, as `NAME=` does in compose files.

    Raises:
        SettingsError: a value cannot be used.
    """
    sources = Sources(options, environ, env_file)
    _warn_of_typos(env_file)
    values = {}
    for each in attrs.fields(Settings):
        found = sources.read(each.metadata["option"], each.metadata["read"])
        if found is not None:
            values[each.name] = found
    for file in KEY_FILES:
        if file.name in values:
            if file.of in values:
                name = file.variable
                message = f"{name.removesuffix('_FILE')} and {name} are both set"
                raise SettingsError(f"{message}; keep one of them")
            values[file.of] = file.read(values[file.name])
    if "fast_paths" not in values:
        values["fast_paths"] = _former_fast_paths(sources)
    if "models" in values:
        values["models"] = read_models(values["models"], _parsers_of_models())
        if "upstream_url" not in values:
            _check_urls(values["models"])
    settings = Settings(**values)
    _check(settings)
    return settings


def _check_urls(models: ModelsFile) -> None:
    """Raise if one of the *models* has no server: the default is rarely meant then."""
    url = member_of(attrs.fields(Settings).upstream_url)
    for table in models.tables:
        if url not in table.texts:
            raise SettingsError(
                f"MODELS: {models.path}: [{table.name}] has no url, and "
                "INFERENCE_SERVICE_URL is not set"
            )


def _parsers_of_models() -> dict[str, Callable[[str], Any]]:
    return {member_of(each): each.metadata["read"] for each in of_models()}


def of_models() -> "list[attrs.Attribute[Any]]":
    """List the settings that each of several models may have of its own."""
    return [each for each in attrs.fields(Settings) if each.name in OF_MODELS]


def member_of(setting: "attrs.Attribute[Any]") -> str:
    """Return what a *setting* is called in a table."""
    return variable(setting.metadata["option"]).lower()


def settings_of(settings: Settings, table: ModelTable) -> Settings:
    """Return the settings of the model in a *table*, where *settings* are of all."""
    own: dict[str, Any] = {
        each.name: each.metadata["read"](table.texts[member_of(each)])
        for each in of_models()
        if member_of(each) in table.texts
    }
    if "upstream_key" in own:
        own.setdefault("upstream_key_file", None)
    tables = settings.models.tables if settings.models else ()
    # Those that have none of their own have equal parts of the memory for rows.
    among = max(1, sum("cache_bytes" not in each.texts for each in tables))
    own.setdefault("cache_bytes", settings.cache_bytes // among)
    return attrs.evolve(settings, **own)


def table_of(settings: Settings, name: str) -> ModelTable | None:
    """Return the table of the model of this *name*, or the default; None for none."""
    tables = settings.models.tables if settings.models else ()
    return next((each for each in tables if name in each.names), *tables[:1] or (None,))


def _check(settings: Settings) -> None:
    """Raise if settings contradict each other."""
    if settings.operations_port == settings.port != "0":
        raise SettingsError("OPERATIONS_PORT is the same as PORT; it may be empty")
    if not settings.keys_are_apart:
        raise SettingsError("ADMIN_KEY is a key of clients as well; take another one")
    _check_tls("TLS", settings.tls_cert, settings.tls_key)
    if settings.models is None:
        _check_upstream(settings)
    elif settings.embedded:
        raise SettingsError("EMBEDDED and MODELS are both set; keep one of them")
    else:
        for table in settings.models.tables:
            try:
                _check_upstream(settings_of(settings, table))
            except SettingsError as error:
                where = f"MODELS: {settings.models.path}: [{table.name}]"
                raise SettingsError(f"{where}: {error}") from error
    if settings.tls_cert and settings.port.startswith("ssl:"):
        raise SettingsError("TLS_CERT is for a PORT without ssl:, which has its own")
    if settings.rate_limit_shared and settings.cache_url is None:
        raise SettingsError("RATE_LIMIT_SHARED is set, but CACHE_URL is not")


def _check_upstream(settings: Settings) -> None:
    for each, _ in parsers.weighted(settings.upstream_url):
        if not settings.embedded and _is_own(each, settings):
            raise SettingsError(
                f"INFERENCE_SERVICE_URL is the address of abproxy itself: {each}; "
                "change it, or PORT"
            )
    _check_tls("UPSTREAM_TLS", settings.upstream_tls_cert, settings.upstream_tls_key)
    for_tls = settings.upstream_tls_cert or settings.upstream_tls_ca
    if for_tls and not settings.has_tls_upstream:
        name = "UPSTREAM_TLS_CERT" if settings.upstream_tls_cert else "UPSTREAM_TLS_CA"
        raise SettingsError(f"{name} is set, but INFERENCE_SERVICE_URL has no https://")
    for name in ("requests", "tokens"):
        is_set = getattr(settings, f"upstream_{name}_per_minute") is not None
        if is_set and len(parsers.hosts(settings.upstream_url)) > 1:
            raise SettingsError(
                f"UPSTREAM_{name.upper()}_PER_MINUTE is for one account, but "
                "INFERENCE_SERVICE_URL has several hosts; "
                "a model of MODELS for each can keep it"
            )


def _is_own(url: str, settings: Settings) -> bool:
    """Return whether the proxy itself listens where *url* leads."""
    place = urlsplit(url)
    port = place.port or (443 if place.scheme == "https" else 80)
    own = {settings.ip}
    if settings.ip in ANY:
        own |= LOOPBACK
    if own & LOOPBACK:
        own.add("localhost")
    return settings.port == str(port) and place.hostname in own


def _check_tls(name: str, cert: str | None, key: str | None) -> None:
    if bool(cert) != bool(key):
        has, lacks = ("CERT", "KEY") if cert else ("KEY", "CERT")
        raise SettingsError(f"{name}_{has} is set, but {name}_{lacks} is not")


def _warn_of_typos(env_file: Mapping[str, str]) -> None:
    options = [*REPLACED, *(each.metadata["option"] for each in attrs.fields(Settings))]
    for name, meant in find_typos(env_file, frozenset(map(variable, options))):
        message = "{name} in the .env file is not a setting; {meant} is"
        _log.warn(message, name=name, meant=meant)


def _former_fast_paths(sources: Sources) -> frozenset[str]:
    """Return the fast paths that the settings of former versions leave on."""
    left = frozenset(FAST_PATHS)
    for option, (path, read, off) in REPLACED.items():
        if sources.read(option, read) == off:
            left -= {path}
            _log.warn(
                "{former} is deprecated; leave {path} out of FAST_PATHS instead",
                former=variable(option),
                path=path,
            )
    return left
