"""What is logged, and where traces go."""

from attrs import frozen

from abproxy.settings import parsers
from abproxy.settings.field import setting


@frozen(kw_only=True, slots=False)
class Telemetry:
    """What is logged, and where traces go."""

    log_level: str = setting(
        "log-level",
        parsers.one_of("debug", "info", "warn", "error", "critical"),
        "info",
        "debug, info, warn, error or critical",
        "least important level that is logged",
    )
    log_format: str = setting(
        "log-format",
        parsers.one_of("text", "json"),
        "text",
        "text or json",
        "format of log lines: text for people, or one JSON object a line",
    )
    access_log: str | None = setting(
        "access-log",
        str,
        None,
        "file, or -",
        "file for a line about each request, in the Combined Log Format or, with "
        "LOG_FORMAT=json, as JSON; - is standard output; SIGHUP reopens the file",
    )
    otlp_endpoint: str | None = setting(
        "otel-exporter-otlp-endpoint",
        parsers.url,
        None,
        "URL",
        "OpenTelemetry collector that traces are sent to over HTTP, like "
        "http://127.0.0.1:4318; by default no traces are made",
    )
    otlp_traces_endpoint: str | None = setting(
        "otel-exporter-otlp-traces-endpoint",
        parsers.url,
        None,
        "URL",
        "the same with its path, like http://127.0.0.1:4318/v1/traces; it wins over "
        "the one above",
    )
