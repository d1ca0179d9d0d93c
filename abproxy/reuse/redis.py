"""
Rows, and the rate of clients, in a Redis or Valkey that several proxies share.

It is never needed: what it does not answer within 20 ms is a miss, and while it is
away it is not asked.  One connection carries all commands, one after the other.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from hashlib import blake2b
from typing import Any, ClassVar, TypeVar
from urllib.parse import unquote, urlsplit

from attrs import define, field, frozen
from twisted.internet import defer
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from abproxy.http.openssl import TlsEndpoint

__all__ = ["Address", "RedisStore", "connect", "read_address"]

DEADLINE_S = 0.02
"""So long an answer may take, in seconds; a model takes longer."""

CONNECT_S = 2.0

STOP_S = 0.5
"""So long the connection may take to close, in seconds."""

FAILURES = 3
"""After so many in a row it is not asked for a while."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
"""For how long it is not asked, at first and at most, in seconds."""

PORT = 6379
PREFIX = b"abproxy:"

FORMAT = b"\x01"
"""The first byte of an entry; those of another format are not read."""

CHECK_BYTES = 4

TAKE = b"""
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local inputs, rate = tonumber(ARGV[1]), tonumber(ARGV[2])
local full_at = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), now)
local wait = full_at - now - math.max(1 - inputs / rate, 0)
if wait > 0.000001 then return string.format('%.6f', wait) end
full_at = full_at + inputs / rate
local expires = math.ceil((full_at - now) * 1000) + 1
redis.call('SET', KEYS[1], string.format('%.6f', full_at), 'PX', expires)
return '0'
"""
"""
Take inputs from the bucket of a client, or return after how many seconds there is
room: the rule of `RateLimiter`, by the clock of the server, in one step.
"""

_T = TypeVar("_T")


@frozen(kw_only=True)
class Address:
    """The address of the server, with the name and password for it."""

    host: str = ""
    port: int = PORT
    path: str = ""
    """Of a Unix socket."""

    is_tls: bool = False
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    database: int | None = None


def read_address(url: str) -> Address:
    """
    Parse `redis://`, `rediss://` or `unix://`.

    Raises:
        ValueError: it is none of them; the message does not repeat the URL.
    """
    message = "expected a URL like redis://host:6379/0, rediss://… or unix:///path"
    parts = urlsplit(url)
    is_unix = parts.scheme == "unix"
    try:
        host, port = parts.hostname or "", parts.port or PORT
        database = parts.path.strip("/")
        number = int(database) if database and not is_unix else None
    except ValueError:
        raise ValueError(message) from None
    if parts.scheme not in {"redis", "rediss", "unix"} or bool(host) == is_unix:
        raise ValueError(message)
    return Address(
        host=host,
        port=port,
        path=parts.path if is_unix else "",
        is_tls=parts.scheme == "rediss",
        user=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        database=number,
    )


def connect(reactor: Any, address: Address) -> Any:
    """Return a client of txredisapi that connects, and connects again."""
    from twisted.internet.endpoints import (  # noqa: PLC0415  settings import us
        HostnameEndpoint,
        UNIXClientEndpoint,
    )
    from txredisapi import RedisFactory  # noqa: PLC0415  an extra dependency

    factory = RedisFactory(
        uuid="cache",
        dbid=address.database,
        poolsize=1,
        isLazy=True,
        charset=None,
        password=address.password,
        convertNumbers=False,
        username=address.user,
    )
    endpoint: Any
    if address.path:
        endpoint = UNIXClientEndpoint(reactor, address.path, timeout=CONNECT_S)
    else:
        endpoint = HostnameEndpoint(reactor, address.host, address.port, CONNECT_S)
    if address.is_tls:
        from twisted.internet.ssl import optionsForClientTLS  # noqa: PLC0415  large

        endpoint = TlsEndpoint(optionsForClientTLS(address.host), endpoint)
    factory.startConnecting(endpoint)
    return factory.handler


@define(kw_only=True, eq=False)
class RedisStore:
    """Entries that other proxies find as well."""

    client: Any = field(repr=False)
    """Has the commands of Redis as methods that return Deferreds."""

    clock: IReactorTime = field(repr=False)
    _failures: int = field(init=False, default=0)
    _pause_s: float = field(init=False, default=0.0)
    _asks_again_at: float = field(init=False, default=0.0)
    _log: ClassVar[Logger] = Logger()

    @property
    def is_away(self) -> bool:
        """Return whether it is not asked at the moment."""
        return self._failures >= FAILURES and self.clock.seconds() < self._asks_again_at

    def get(self, keys: Sequence[bytes]) -> Deferred[list[bytes | None]]:
        """Fire with the value of each key, or None; never fails."""
        nothing: list[bytes | None] = [None] * len(keys)
        named = [PREFIX + key for key in keys]
        found = self._ask(lambda: self.client.mget(named), nothing)
        return found.addCallback(lambda values: list(map(_open, values)))

    def put(self, entries: Mapping[bytes, bytes], ttl_s: float) -> None:
        """Store *entries* for so many seconds, without waiting for that."""
        milliseconds = max(1, int(ttl_s * 1000))
        for key, value in entries.items():
            command = partial(
                self.client.set, PREFIX + key, _seal(value), pexpire=milliseconds
            )
            self._ask(command, None)

    def take(self, client: bytes, inputs: int, inputs_per_s: float) -> Deferred[float]:
        """
        Take *inputs* from the bucket of a *client* that all proxies share.

        Fires with 0, or with the seconds after which there is room for them; never
        fails, and 0 if it cannot be told.
        """
        name = blake2b(client, digest_size=16).digest()
        keys, about = [PREFIX + b"rate:" + name], [inputs, inputs_per_s]
        wait_s = self._ask(lambda: self.client.eval(TAKE, keys, about), b"0")
        return wait_s.addCallback(float)

    def stop(self) -> Deferred[Any]:
        """Close the connection; a server that hangs is not waited for."""
        stopped: Deferred[Any] = self.client.disconnect()
        stopped.addTimeout(STOP_S, self.clock)
        return stopped.addErrback(lambda _: None)

    def _ask(self, command: Callable[[], Deferred[_T]], otherwise: _T) -> Deferred[_T]:
        """Send a *command*; fires with its answer, or with *otherwise*."""
        if self.is_away:
            return succeed(otherwise)
        asked = command().addTimeout(DEADLINE_S, self.clock)
        return asked.addCallbacks(
            self._answered, self._failed, errbackArgs=(otherwise,)
        )

    def _answered(self, answer: _T) -> _T:
        if self._failures >= FAILURES:
            self._log.info("The shared cache answers again")
        self._failures, self._pause_s = 0, 0.0
        return answer

    def _failed(self, failure: Failure, otherwise: _T) -> _T | Failure:
        if failure.check(CancelledError):
            return failure  # its caller has left
        if self.is_away:
            return otherwise  # it was asked before that was known
        self._failures += 1
        if self._failures >= FAILURES:
            if not self._pause_s:
                why = failure.getErrorMessage()
                if failure.check(defer.TimeoutError):
                    why = f"no answer within {DEADLINE_S * 1000:g} ms"
                self._log.warn("The shared cache is not used for now: {why}", why=why)
            self._pause_s = min(self._pause_s * 2 or FIRST_PAUSE_S, LONGEST_PAUSE_S)
            self._asks_again_at = self.clock.seconds() + self._pause_s
        return otherwise


def _seal(value: bytes) -> bytes:
    """Write an entry with what tells its format, and whether it is whole."""
    return FORMAT + zlib.crc32(value).to_bytes(CHECK_BYTES, "big") + value


def _open(entry: Any) -> bytes | None:
    """Return the value in an *entry*; None if it is none of ours, or damaged."""
    if not isinstance(entry, bytes) or not entry.startswith(FORMAT):
        return None
    check, value = entry[1 : 1 + CHECK_BYTES], entry[1 + CHECK_BYTES :]
    is_whole = zlib.crc32(value).to_bytes(CHECK_BYTES, "big") == check
    return value if is_whole else None
