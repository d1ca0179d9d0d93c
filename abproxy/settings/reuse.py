"""What is not computed twice."""

from attrs import frozen

from abproxy.settings import parsers
from abproxy.settings.field import secret, setting


@frozen(kw_only=True, slots=False)
class Reuse:
    """What is not computed twice."""

    dedupe: bool = setting(
        "dedupe",
        parsers.yes_or_no,
        True,
        "true or false",
        "whether equal inputs that are asked for at the same time are computed once",
    )
    cache_bytes: int = setting(
        "cache-bytes",
        parsers.at_least(0),
        0,
        "bytes",
        "memory for rows that were computed before, of all workers together; 0: none "
        "are remembered",
    )
    cache_ttl_s: float = setting(
        "cache-ttl",
        parsers.seconds,
        86_400.0,
        "s",
        "how long a row is remembered",
    )
    cache_scope: str | None = setting(
        "cache-scope",
        parsers.one_of("client", "all"),
        None,
        "client or all",
        "whose rows may answer a call: those of the same client, or of all; by default "
        "of the same client if there are several keys, else of all",
    )
    cache_epoch: str | None = setting(
        "cache-epoch",
        parsers.key,
        None,
        "word",
        "a word to change whenever the model changes, for inference servers that do "
        "not say which model they have",
    )
    cache_url: str | None = secret(
        "cache-url",
        parsers.cache_url,
        None,
        "Redis or Valkey in which several proxies remember rows together: "
        "redis://user:password@host:6379/0, rediss://… or unix:///path",
    )
    rate_limit_shared: bool = setting(
        "rate-limit-shared",
        parsers.yes_or_no,
        False,
        "true or false",
        "whether RATE_LIMIT counts what a client sends to all proxies with the same "
        "CACHE_URL; while that is away each counts by itself",
    )
