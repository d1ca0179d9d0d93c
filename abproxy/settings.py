"""
All settings, checked once when they are read.

The command line wins over the environment, which wins over the `.env` file.
Each setting is declared in one place, with its option, unit, default and
meaning; `--help` and the settings page are made from it, `.env.example` and
the README are tested against it.
"""

from collections.abc import Callable, Mapping
from typing import Any

import attrs
from attrs import field, frozen
from twisted.logger import Logger

from abproxy import parsers
from abproxy.errors import SettingsError
from abproxy.parsers import Sources, variable

__all__ = [
    "Settings",
    "default_of",
    "explain",
    "list_settings",
    "settings_from",
    "shown",
    "variable",
]


FAST_PATHS = ("server", "write", "poll", "client")

REPLACED: Mapping[str, tuple[str, Callable[[str], Any], Any]] = {
    "express": ("server", parsers.yes_or_no, False),
    "write-at-once": ("write", parsers.yes_or_no, False),
    "poll-directly": ("poll", parsers.yes_or_no, False),
    "upstream-client": ("client", parsers.one_of("fast", "treq"), "treq"),
}
"""Options of former versions: the fast path of each, its parser, and its off value."""

_log = Logger()


def _setting(
    option: str, read: Callable[[str], Any], default: Any, unit: str, meaning: str
) -> Any:
    metadata = {"option": option, "read": read, "unit": unit, "meaning": meaning}
    return field(default=default, metadata=metadata)


def _secret(option: str, read: Callable[[str], Any], default: Any, meaning: str) -> Any:
    metadata = {"option": option, "read": read, "unit": "", "meaning": meaning}
    return field(default=default, metadata=metadata, repr=False)


@frozen(kw_only=True)
class Settings:
    """All settings, with units in their names."""

    port: str = _setting(
        "port",
        parsers.port,
        "8081",
        "number, or endpoint",
        "port to listen on; a value with a colon is a Twisted endpoint, like "
        "unix:/run/abproxy.sock",
    )
    ip: str = _setting(
        "ip", str, "127.0.0.1", "address", "address to listen on; 0.0.0.0 for all"
    )
    workers: int = _setting(
        "workers",
        parsers.at_least(1),
        1,
        "processes",
        "processes that share the port, for machines where one core is not enough",
    )
    operations_port: str | None = _setting(
        "operations-port",
        parsers.port,
        None,
        "number, or endpoint",
        "separate port for /metrics and the pages below /-/, of which PORT then serves "
        "only the health checks; it stays open until the last call is answered",
    )
    upstream_url: str = _setting(
        "inference-service-url",
        parsers.url,
        "http://127.0.0.1:8080",
        "URL",
        "base URL of the inference server",
    )
    upstream_key: str | None = _secret(
        "inference-service-key",
        parsers.key,
        None,
        "key for the inference server, sent as `Authorization: Bearer`; "
        "without it the clients' own credentials are passed on",
    )
    upstream_headers: tuple[tuple[str, str], ...] = _secret(
        "upstream-headers",
        parsers.header_lines,
        (),
        "headers for every request to the inference server, which replace those of "
        "clients: `Name: value`, separated by vertical bars or newlines; may set Host",
    )
    api_keys: tuple[str, ...] = _secret(
        "api-key",
        parsers.keys,
        (),
        "keys, separated by commas; clients must send one of them as `Authorization: "
        "Bearer`; it is not passed on to the inference server",
    )
    bulk_api_keys: tuple[str, ...] = _secret(
        "bulk-api-key",
        parsers.keys,
        (),
        "more such keys, for calls of low priority: as if they had X-Priority: bulk",
    )
    max_wait_ms: float = _setting(
        "max-wait-time",
        parsers.milliseconds,
        0.0,
        "ms",
        "how long a call may be held so that others can join its batch; 0: a lone call "
        "is sent at once",
    )
    max_batch_calls: int | None = _setting(
        "max-batch-size",
        parsers.at_least(1),
        None,
        "calls",
        "most client requests in one batch; by default as many as fit",
    )
    max_batch_inputs: int | None = _setting(
        "max-batch-inputs",
        parsers.at_least(1),
        None,
        "inputs",
        "most inputs in one batch; by default as many as the inference server accepts, "
        "or 32",
    )
    max_batch_bytes: int = _setting(
        "max-batch-bytes",
        parsers.at_least(1),
        1_900_000,
        "bytes",
        "most JSON in one batch; TEI accepts bodies of 2,000,000 bytes",
    )
    share_ignore: tuple[str, ...] = _setting(
        "share-ignore",
        parsers.ignored_names,
        (),
        "names",
        "what may differ within a batch, because no answer depends on it: header "
        "names, separated by commas, which may end in *, and body.NAME for members",
    )
    share_apart: tuple[str, ...] = _setting(
        "share-apart",
        parsers.shared_names,
        (),
        "names",
        "what must be equal for calls to share a batch, in the same form",
    )
    share_alone: tuple[str, ...] = _setting(
        "share-alone",
        parsers.shared_names,
        (),
        "names",
        "what makes a call be sent alone and not split, in the same form",
    )
    oversize: str = _setting(
        "oversize",
        parsers.one_of("split", "refuse"),
        "split",
        "split or refuse",
        "what to do with a call that has more inputs than a batch may have: split it "
        "and join the results, or send it whole, for the inference server to refuse",
    )
    usage: str = _setting(
        "usage",
        parsers.one_of("shared", "exact"),
        "shared",
        "shared or exact",
        "token counts in OpenAI answers of shared batches: divided in proportion to "
        "length, or counted with one more request to /tokenize for each batch",
    )
    slots: int | None = _setting(
        "slots",
        parsers.at_least(1),
        None,
        "batches",
        "most batches in flight that were not full when sent; by default 2, and more "
        "if the inference server works on several at a time",
    )
    budget: int | None = _setting(
        "budget",
        parsers.at_least(1),
        None,
        "inputs",
        "most inputs in flight; by default it adapts to the inference server, up to "
        "the number that the server accepts",
    )
    packing: bool = _setting(
        "packing",
        parsers.yes_or_no,
        True,
        "true or false",
        "whether calls of similar length are sent together when many wait, for "
        "inference servers that pad inputs to the longest",
    )
    fast_paths: frozenset[str] = _setting(
        "fast-paths",
        parsers.some_of(*FAST_PATHS),
        frozenset(FAST_PATHS),
        "all, none, or names",
        "optimizations that save CPU time and give the same bytes: server (plain calls "
        "bypass Klein), write (write to sockets in the same reactor turn), poll (no "
        "logging context around events), client (abproxy's own HTTP client for "
        "batches; without it, and for https://, treq)",
    )
    connect_patience_s: float = _setting(
        "connect-patience",
        parsers.seconds,
        5.0,
        "s",
        "how long calls wait while the inference server cannot be reached",
    )
    overload_patience_s: float = _setting(
        "overload-patience",
        parsers.seconds,
        5.0,
        "s",
        "how long calls wait while the inference server has no capacity (429, 503)",
    )
    max_waiting_inputs: int = _setting(
        "max-waiting-inputs",
        parsers.at_least(1),
        10_000,
        "inputs",
        "most inputs that may wait; calls beyond that are refused with 429",
    )
    max_waiting_bytes: int = _setting(
        "max-waiting-bytes",
        parsers.at_least(1),
        64 << 20,
        "bytes",
        "most JSON of inputs that may wait; calls beyond that are refused with 429",
    )
    max_waiting_inputs_of_one: int | None = _setting(
        "max-waiting-inputs-per-client",
        parsers.at_least(1),
        None,
        "inputs",
        "most inputs of one client (a key, or an address) that may wait; calls beyond "
        "that are refused with 429",
    )
    rate_limit: float | None = _setting(
        "rate-limit",
        parsers.rate,
        None,
        "inputs/s",
        "inputs that one client may send in a second; calls beyond that are refused "
        "with 429",
    )
    call_timeout_s: float = _setting(
        "call-timeout",
        parsers.seconds,
        300.0,
        "s",
        "how long a call may wait to be sent, or sent again; after that it gets a 504",
    )
    max_body_bytes: int = _setting(
        "max-body-bytes",
        parsers.at_least(1),
        32 << 20,
        "bytes",
        "largest request body; a larger one is refused with 413",
    )
    max_connections: int = _setting(
        "max-connections",
        parsers.at_least(1),
        10_000,
        "connections",
        "most client connections, and never more than half of the files that may be "
        "open; one too many is answered with 429 and closed",
    )
    request_timeout_s: float = _setting(
        "request-timeout",
        parsers.seconds,
        60.0,
        "s",
        "how long a request may take to arrive, headers and body; a slower one is "
        "refused with 408",
    )
    max_answer_bytes: int = _setting(
        "max-answer-bytes",
        parsers.at_least(1),
        512 << 20,
        "bytes",
        "largest answer to a batch; for a larger one its callers get a 502",
    )
    upstream_timeout_s: float = _setting(
        "upstream-timeout",
        parsers.seconds,
        120.0,
        "s",
        "how long the inference server may take for one answer, body included",
    )
    connect_timeout_s: float = _setting(
        "connect-timeout",
        parsers.seconds,
        5.0,
        "s",
        "how long opening a connection to the inference server may take",
    )
    drain_timeout_s: float = _setting(
        "drain-timeout",
        parsers.seconds,
        30.0,
        "s",
        "how long accepted calls may take to finish after SIGTERM",
    )
    log_level: str = _setting(
        "log-level",
        parsers.one_of("debug", "info", "warn", "error", "critical"),
        "info",
        "debug, info, warn, error or critical",
        "least important level that is logged",
    )
    log_format: str = _setting(
        "log-format",
        parsers.one_of("text", "json"),
        "text",
        "text or json",
        "format of log lines: text for people, or one JSON object a line",
    )
    access_log: str | None = _setting(
        "access-log",
        str,
        None,
        "file, or -",
        "file for a line about each request, in the Combined Log Format or, with "
        "LOG_FORMAT=json, as JSON; - is standard output; SIGHUP reopens the file",
    )
    otlp_endpoint: str | None = _setting(
        "otel-exporter-otlp-endpoint",
        parsers.url,
        None,
        "URL",
        "OpenTelemetry collector that traces are sent to over HTTP, like "
        "http://127.0.0.1:4318; by default no traces are made",
    )
    embedded: bool = _setting(
        "embedded",
        parsers.yes_or_no,
        False,
        "",
        "start a small real model beside the proxy and use it as the inference server",
    )
    embedded_model: str = _setting(
        "embedded-model",
        parsers.one_of("minilm", "static"),
        "minilm",
        "minilm or static",
        "model to start with --embedded",
    )


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
    values = {}
    for each in attrs.fields(Settings):
        found = sources.read(each.metadata["option"], each.metadata["read"])
        if found is not None:
            values[each.name] = found
    if "fast_paths" not in values:
        values["fast_paths"] = _former_fast_paths(sources)
    settings = Settings(**values)
    if settings.operations_port == settings.port != "0":
        raise SettingsError("OPERATIONS_PORT is the same as PORT; it may be empty")
    return settings


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
