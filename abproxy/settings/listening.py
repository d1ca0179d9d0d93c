"""Where clients connect, and how the proxy starts and ends."""

from attrs import frozen

from abproxy.settings import parsers
from abproxy.settings.field import setting

FAST_PATHS = ("server", "write", "poll", "client")
"""Optimizations that can be switched off."""


@frozen(kw_only=True, slots=False)
class Listening:
    """Where clients connect, and how the proxy starts and ends."""

    port: str = setting(
        "port",
        parsers.port,
        "8081",
        "number, or endpoint",
        "port to listen on; a value with a colon is a Twisted endpoint, like "
        "unix:/run/abproxy.sock",
    )
    ip: str = setting(
        "ip", str, "127.0.0.1", "address", "address to listen on; 0.0.0.0 for all"
    )
    tls_cert: str | None = setting(
        "tls-cert",
        parsers.file,
        None,
        "file",
        "certificate for TLS on PORT, in PEM, followed by those that lead to one that "
        "clients know; read again when it changes",
    )
    tls_key: str | None = setting(
        "tls-key",
        parsers.file,
        None,
        "file",
        "the key of this certificate, in PEM, without a password",
    )
    workers: int = setting(
        "workers",
        parsers.at_least(1),
        1,
        "processes",
        "processes that share the port, for machines where one core is not enough",
    )
    operations_port: str | None = setting(
        "operations-port",
        parsers.port,
        None,
        "number, or endpoint",
        "separate port for /metrics and the pages below /-/, of which PORT then serves "
        "only the health checks; it stays open until the last call is answered",
    )
    path_prefix: str | None = setting(
        "path-prefix",
        parsers.path_prefix,
        None,
        "path",
        "what a load balancer in front leaves before all paths, like /embeddings; "
        "paths without it are served as well",
    )
    drain_timeout_s: float = setting(
        "drain-timeout",
        parsers.seconds,
        30.0,
        "s",
        "how long accepted calls may take to finish after SIGTERM, with DRAIN_DELAY",
    )
    drain_delay_s: float = setting(
        "drain-delay",
        parsers.seconds_or_none,
        2.0,
        "s",
        "how long the port stays open after SIGTERM, with 503 at /-/ready and "
        "`Connection: close` in answers, so that load balancers notice; at most half "
        "of DRAIN_TIMEOUT; 0: the port is closed at once, as on SIGINT",
    )
    fast_paths: frozenset[str] = setting(
        "fast-paths",
        parsers.some_of(*FAST_PATHS),
        frozenset(FAST_PATHS),
        "all, none, or names",
        "optimizations that save CPU time and give the same bytes: server (plain calls "
        "bypass Klein), write (write to sockets in the same reactor turn), poll (no "
        "logging context around events), client (abproxy's own HTTP client for "
        "batches; without it treq)",
    )
