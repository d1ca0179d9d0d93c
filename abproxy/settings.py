"""
What the operator chose: every value checked at the edge, once.

The command line wins over the environment, which wins over the `.env` file.
Each setting is declared in one place, with its option, unit, default and
meaning; help, `.env.example` and the README say the same because they are
made of it or tested against it.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
from attrs import field, frozen
from dotenv.parser import parse_stream

from abproxy import readers

__all__ = [
    "DEFAULT_ENV_FILE",
    "Settings",
    "SettingsError",
    "default_of",
    "explain",
    "read_env_file",
    "settings_from",
    "shown",
    "variable",
]


DEFAULT_ENV_FILE = ".env"


class SettingsError(Exception):
    """A setting cannot be used; the message is for the operator."""


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
        readers.port,
        "8081",
        "number, or endpoint",
        "where to listen; with a colon a Twisted endpoint like unix:/run/abproxy.sock",
    )
    ip: str = _setting(
        "ip", str, "127.0.0.1", "address", "the address to listen on; 0.0.0.0 for all"
    )
    workers: int = _setting(
        "workers",
        readers.at_least(1),
        1,
        "processes",
        "processes that share the port, for machines where one core is not enough",
    )
    operations_port: str | None = _setting(
        "operations-port",
        readers.port,
        None,
        "number, or endpoint",
        "where /metrics and the pages below /-/ are instead of at PORT, with all the "
        "rest; it stays open until the last call is answered",
    )
    upstream_url: str = _setting(
        "inference-service-url",
        readers.url,
        "http://127.0.0.1:8080",
        "URL",
        "the inference server",
    )
    upstream_key: str | None = _secret(
        "inference-service-key",
        readers.key,
        None,
        "key for the inference server, sent as `Authorization: Bearer`; "
        "without it the clients' own credentials are passed on",
    )
    api_keys: tuple[str, ...] = _secret(
        "api-key",
        readers.keys,
        (),
        "keys that clients must show as `Authorization: Bearer`, separated by commas; "
        "they are not passed on to the inference server",
    )
    bulk_api_keys: tuple[str, ...] = _secret(
        "bulk-api-key",
        readers.keys,
        (),
        "more such keys, whose calls are in no hurry: as if they said X-Priority: bulk",
    )
    max_wait_ms: float = _setting(
        "max-wait-time",
        readers.milliseconds,
        0.0,
        "ms",
        "how long a call may be held for company; 0: a lone call leaves at once",
    )
    max_batch_calls: int | None = _setting(
        "max-batch-size",
        readers.at_least(1),
        None,
        "calls",
        "client requests in one batch; by default as many as fit",
    )
    max_batch_inputs: int | None = _setting(
        "max-batch-inputs",
        readers.at_least(1),
        None,
        "inputs",
        "inputs in one batch; by default what the inference server takes, or 32",
    )
    max_batch_bytes: int = _setting(
        "max-batch-bytes",
        readers.at_least(1),
        1_900_000,
        "bytes",
        "JSON in one batch; TEI takes bodies of 2,000,000 bytes",
    )
    oversize: str = _setting(
        "oversize",
        readers.one_of("split", "refuse"),
        "split",
        "split or refuse",
        "what becomes of a call with more inputs than a batch: cut and joined again, "
        "or left to the inference server to refuse",
    )
    usage: str = _setting(
        "usage",
        readers.one_of("shared", "exact"),
        "shared",
        "shared or exact",
        "the token counts in OpenAI answers of shared batches: in proportion to "
        "length, or counted by one more request to /tokenize for each batch",
    )
    slots: int | None = _setting(
        "slots",
        readers.at_least(1),
        None,
        "batches",
        "batches that may be in flight without being full; by default 2, and more if "
        "the inference server works on several at a time",
    )
    budget: int | None = _setting(
        "budget",
        readers.at_least(1),
        None,
        "inputs",
        "inputs that may be in flight; by default it follows what the inference "
        "server can do, up to the number that it takes",
    )
    packing: bool = _setting(
        "packing",
        readers.yes_or_no,
        True,
        "true or false",
        "whether calls of similar length leave together when many wait, for "
        "inference servers that pad",
    )
    express: bool = _setting(
        "express",
        readers.yes_or_no,
        True,
        "true or false",
        "whether plain calls take the express way in, which costs less and gives the "
        "same bytes",
    )
    write_at_once: bool = _setting(
        "write-at-once",
        readers.yes_or_no,
        True,
        "true or false",
        "whether batches, and answers on the express way, are written in the same "
        "turn, where the connection takes them",
    )
    poll_directly: bool = _setting(
        "poll-directly",
        readers.yes_or_no,
        True,
        "true or false",
        "whether events go straight to their connections, without a context for "
        "Twisted's old log around each",
    )
    upstream_client: str = _setting(
        "upstream-client",
        readers.one_of("fast", "treq"),
        "fast",
        "fast or treq",
        "what speaks to the inference server for batches: a client of our own, which "
        "costs less and gives the same replies, or treq, which https:// takes anyway",
    )
    connect_patience_s: float = _setting(
        "connect-patience",
        readers.seconds,
        5.0,
        "s",
        "how long calls wait for an inference server that cannot be reached",
    )
    overload_patience_s: float = _setting(
        "overload-patience",
        readers.seconds,
        5.0,
        "s",
        "how long calls wait for an inference server that has no room (429, 503)",
    )
    max_waiting_inputs: int = _setting(
        "max-waiting-inputs",
        readers.at_least(1),
        10_000,
        "inputs",
        "inputs that may wait; more are refused with 429",
    )
    max_waiting_bytes: int = _setting(
        "max-waiting-bytes",
        readers.at_least(1),
        64 << 20,
        "bytes",
        "JSON of inputs that may wait; more is refused with 429",
    )
    max_waiting_inputs_of_one: int | None = _setting(
        "max-waiting-inputs-per-client",
        readers.at_least(1),
        None,
        "inputs",
        "inputs that one client (a key, or an address) may have waiting",
    )
    rate_limit: float | None = _setting(
        "rate-limit",
        readers.rate,
        None,
        "inputs/s",
        "inputs that one client may send in a second; more are refused with 429",
    )
    call_timeout_s: float = _setting(
        "call-timeout",
        readers.seconds,
        300.0,
        "s",
        "how long a call may wait for its turn; after that it gets a 504",
    )
    max_body_bytes: int = _setting(
        "max-body-bytes",
        readers.at_least(1),
        32 << 20,
        "bytes",
        "the largest request body; a larger one is refused with 413",
    )
    max_connections: int = _setting(
        "max-connections",
        readers.at_least(1),
        10_000,
        "connections",
        "connections of clients, and no more than half the files that may be open; "
        "one too many is answered with 429 and closed",
    )
    request_timeout_s: float = _setting(
        "request-timeout",
        readers.seconds,
        60.0,
        "s",
        "how long a request may take to arrive, head and body; a slower one is "
        "refused with 408",
    )
    max_answer_bytes: int = _setting(
        "max-answer-bytes",
        readers.at_least(1),
        512 << 20,
        "bytes",
        "the largest answer to a batch; a larger one is a 502",
    )
    upstream_timeout_s: float = _setting(
        "upstream-timeout",
        readers.seconds,
        120.0,
        "s",
        "how long the inference server may take for one answer, body included",
    )
    connect_timeout_s: float = _setting(
        "connect-timeout",
        readers.seconds,
        5.0,
        "s",
        "how long opening a connection to the inference server may take",
    )
    drain_timeout_s: float = _setting(
        "drain-timeout",
        readers.seconds,
        30.0,
        "s",
        "how long accepted calls may take after SIGTERM",
    )
    log_level: str = _setting(
        "log-level",
        readers.one_of("debug", "info", "warn", "error", "critical"),
        "info",
        "debug, info, warn, error or critical",
        "what is too unimportant for the log",
    )
    log_format: str = _setting(
        "log-format",
        readers.one_of("text", "json"),
        "text",
        "text or json",
        "how log lines look: for people, or one JSON object a line",
    )
    access_log: str | None = _setting(
        "access-log",
        str,
        None,
        "file, or -",
        "a line for each request, in the Combined Log Format or as JSON, into a file "
        "or (-) to standard output; SIGHUP opens the file anew",
    )
    otlp_endpoint: str | None = _setting(
        "otel-exporter-otlp-endpoint",
        readers.url,
        None,
        "URL",
        "an OpenTelemetry collector that traces are sent to, over HTTP, like "
        "http://127.0.0.1:4318; by default there are none",
    )
    embedded: bool = _setting(
        "embedded",
        readers.yes_or_no,
        False,
        "",
        "start a small real model beside the proxy and use it as inference server",
    )
    embedded_model: str = _setting(
        "embedded-model",
        readers.one_of("minilm", "static"),
        "minilm",
        "minilm or static",
        "the model to start with --embedded",
    )


def variable(option: str) -> str:
    """Name the environment variable of an *option*."""
    return option.upper().replace("-", "_")


def explain(setting: "attrs.Attribute[Any]") -> str:
    """Say what a *setting* means, with its unit and default, in one line."""
    about = setting.metadata
    unit = f"{about['unit']}; " if about["unit"] else ""
    return f"{about['meaning']} [{unit}default: {default_of(setting)}]"


def default_of(setting: "attrs.Attribute[Any]") -> str:
    """Write the default of a *setting* as the operator would."""
    return shown(setting, setting.default)


def shown(setting: "attrs.Attribute[Any]", value: Any) -> str:
    """Write a *value* as the operator would; of a secret only whether there is one."""
    if value is None or value == ():
        return "none"
    if not setting.repr:
        return f"{len(value)} keys" if isinstance(value, tuple) else "set"
    return f"{value:g}" if isinstance(value, float) else str(value).lower()


def read_env_file(path: str | None) -> dict[str, str]:
    """
    Read settings from *path*, or from `.env` here if there is one.

    Raises:
        SettingsError: the file cannot be read or understood.
    """
    file = Path(path or DEFAULT_ENV_FILE)
    try:
        # Some editors begin a file with a byte order mark.
        with file.open(encoding="utf-8-sig") as stream:
            lines = list(parse_stream(stream))
    except (OSError, ValueError) as error:
        if path is None and isinstance(error, FileNotFoundError):
            return {}
        reason = getattr(error, "strerror", None) or error
        raise SettingsError(f"cannot read settings from {file}: {reason}") from error
    for line in lines:
        # Half a name is how a file ends that was cut off.
        if line.error or (line.key is not None and line.value is None):
            text = line.original.string
            blank = text[: len(text) - len(text.lstrip())].count("\n")
            where = f"{file}, line {line.original.line + blank}"
            raise SettingsError(f"{where}: not of the form NAME=value")
    return {line.key: line.value for line in lines if line.key and line.value}


def settings_from(
    options: Mapping[str, Any], environ: Mapping[str, str], env_file: Mapping[str, str]
) -> Settings:
    """
    Take each setting from the first source that has it.

    An empty value counts as none, as `NAME=` does in compose files.

    Raises:
        SettingsError: a value cannot be used.
    """
    values = {}
    for each in attrs.fields(Settings):
        option = each.metadata["option"]
        name = variable(option)
        sources = (
            (f"--{option}", options.get(option)),
            (f"{name} in the environment", environ.get(name)),
            (f"{name} in the .env file", env_file.get(name)),
        )
        where, text = next((pair for pair in sources if pair[1]), ("", None))
        if text is not None:
            values[each.name] = _read(where, str(text), each.metadata["read"])
    return Settings(**values)


def _read(where: str, text: str, read: Callable[[str], Any]) -> Any:
    try:
        return read(text)
    except ValueError as error:
        raise SettingsError(f"{where}: {error}") from error
