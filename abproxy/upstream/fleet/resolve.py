"""
The addresses of a name, looked up again and again.

The system is asked, through the reactor: what is in `/etc/hosts`, search domains and
the resolver of a container count as for any other connection.  It does not tell how
long an answer holds.

A server may have an IPv4 and an IPv6 address, and nothing tells which two of them
are of one server.  So only those of one family count, that of the address which the
system puts first (RFC 6724, section 6).  If none of these can be connected to, it is
the turn of the other family.
"""

from collections.abc import Callable, Sequence
from math import inf
from random import Random
from typing import Any, ClassVar

from attrs import define, field
from twisted.internet.abstract import isIPv6Address
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import (
    IHostnameResolver,
    IHostResolution,
    IReactorTime,
    IResolutionReceiver,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from abproxy.events import UpstreamState
from abproxy.timer import Timer
from abproxy.upstream.client import Upstream
from abproxy.upstream.fleet.member import Member

__all__ = ["Lookup", "NamedServers", "look_up"]

LEAST_S = 1.0
"""How long after a lookup the next may begin, in seconds, whatever has failed."""

LONGEST_S = 30.0
"""How long a lookup may take, in seconds; the system gives up before."""

JITTER = 0.2
"""By what part of its time a lookup may be earlier, so that not all come at once."""


@implementer(IResolutionReceiver)
@define(eq=False)
class _Receiver:
    """Collects the addresses of one lookup."""

    done: Deferred[list[str]] = field(factory=Deferred)
    _found: list[str] = field(factory=list)

    def resolutionBegan(self, resolution: IHostResolution) -> None:  # noqa: N802
        """Wait: there is nothing to know yet."""

    def addressResolved(self, address: Any) -> None:  # noqa: N802
        """Keep one."""
        if isinstance(address, IPv4Address | IPv6Address):
            self._found.append(_text_of(address))

    def resolutionComplete(self) -> None:  # noqa: N802
        """Tell all of them, in the order of the system."""
        self.done.callback(list(dict.fromkeys(self._found)))


def _text_of(address: IPv4Address | IPv6Address) -> str:
    """Return an address as it is connected to: with its zone, if it has one."""
    zone = getattr(address, "scopeID", 0)
    return (
        f"{address.host}%{zone}" if zone and "%" not in address.host else address.host
    )


def look_up(
    resolver: IHostnameResolver, host: str, clock: IReactorTime
) -> Deferred[list[str]]:
    """Return the addresses of *host*, the best first; none if none are told in time."""
    receiver = _Receiver()
    receiver.done.addTimeout(LONGEST_S, clock, lambda *_: [])
    resolver.resolveHostName(receiver, host, 0)
    return receiver.done


@define(kw_only=True, eq=False)
class Lookup:
    """Keeps the addresses of one name up to date."""

    host: str
    clock: IReactorTime = field(repr=False)
    resolver: IHostnameResolver = field(repr=False)

    every_s: float
    """After how long it is looked up again at the latest, in seconds."""

    on_change: Callable[[Sequence[str], Sequence[str]], None] = field(
        default=lambda _added, _removed: None, repr=False
    )
    """Called with the addresses that are new, and with those that are gone."""

    is_away: Callable[[], bool] = field(default=lambda: False, repr=False)
    """Returns whether none of the addresses can be connected to."""

    random: Random = field(factory=Random, repr=False)

    addresses: tuple[str, ...] = field(init=False, default=())
    """Those that count."""

    _looking: Deferred[Any] | None = field(init=False, default=None, repr=False)
    _next: Timer = field(init=False, repr=False)
    _looked_at: float = field(init=False, default=-inf)
    _stays_until: float = field(init=False, default=-inf)
    """Until when the family is not changed again; the clock's seconds."""

    _is_missing: bool = field(init=False, default=False)
    _log: ClassVar[Logger] = Logger()

    def __attrs_post_init__(self) -> None:
        """Begin with nothing known."""
        self._next = Timer(self.clock, self._look)

    def start(self) -> None:
        """Look it up now, and from now on."""
        self._look()

    def stop(self) -> None:
        """Look it up no more."""
        self._next.cancel()
        looking, self._looking = self._looking, None
        if looking is not None:
            looking.cancel()

    def doubt(self) -> None:
        """Look it up again soon: a connection to one of the addresses has failed."""
        if self._next.pending is not None:
            passed_s = self.clock.seconds() - self._looked_at
            self._look_in(max(0.0, LEAST_S - passed_s))

    def _look(self) -> None:
        self._looked_at = self.clock.seconds()
        looking = self._looking = look_up(self.resolver, self.host, self.clock)
        looking.addCallback(self._looked, looking).addErrback(self._not_looked)

    def _looked(self, found: list[str], looking: Deferred[Any]) -> None:
        if self._looking is not looking:
            return
        self._looking = None
        # Set first, so that what hears of a change may stop it.
        self._look_in(self.every_s * (1 - JITTER * self.random.random()))
        if found:
            self._take(self._of_one_family(found))
        else:
            self._note_missing()

    def _not_looked(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self._log.failure("A bug while looking up {host}", failure, host=self.host)

    def _take(self, addresses: Sequence[str]) -> None:
        self._is_missing = False
        former, self.addresses = self.addresses, tuple(addresses)
        added = [each for each in addresses if each not in former]
        removed = [each for each in former if each not in addresses]
        if added or removed:
            self._log.info(
                "Addresses of {host}: {count}; new: {added}; gone: {removed}",
                host=self.host,
                count=len(addresses),
                added=", ".join(added) or "none",
                removed=", ".join(removed) or "none",
            )
            self.on_change(added, removed)

    def _of_one_family(self, found: Sequence[str]) -> Sequence[str]:
        families: dict[bool, list[str]] = {}
        for each in found:
            families.setdefault(isIPv6Address(each), []).append(each)
        if len(families) == 1:
            return found
        if not self.addresses:
            return next(iter(families.values()))
        is_6, now = isIPv6Address(self.addresses[0]), self.clock.seconds()
        if now >= self._stays_until and self.is_away():
            self._stays_until = now + self.every_s
            is_6 = not is_6
        return families[is_6]

    def _note_missing(self) -> None:
        """Keep what there was: a failed lookup ends none."""
        if not self.addresses:
            self._look_in(LEAST_S)
        if not self._is_missing:
            self._is_missing = True
            kept = ", ".join(self.addresses) or "none"
            self._log.warn(
                "Cannot look up {host}; its addresses stay: {kept}",
                host=self.host,
                kept=kept,
            )

    def _look_in(self, pause_s: float) -> None:
        at = self.clock.seconds() + pause_s
        if self._next.pending is not None and self._next.pending.getTime() <= at:
            return
        self._next.cancel()
        self._next.set(pause_s)


@define(kw_only=True, eq=False)
class NamedServers:
    """The servers of a fleet that are at the addresses of one name."""

    base_url: str
    """That of all of them."""

    lookup: Lookup
    make: Callable[[str], Upstream] = field(repr=False)
    """Makes the server at an address."""

    add: Callable[[Upstream], Member] = field(repr=False)
    remove: Callable[[Member], object] = field(repr=False)

    members: dict[str, Member] = field(init=False, factory=dict)
    """Those that there are, by their addresses."""

    def __attrs_post_init__(self) -> None:
        """Listen to what is looked up."""
        self.lookup.on_change = self._change
        self.lookup.is_away = self._is_away

    def start(self) -> None:
        """Look the name up now, and from now on."""
        self.lookup.start()

    def stop(self) -> None:
        """Look it up no more; the servers stay."""
        self.lookup.stop()

    def _change(self, added: Sequence[str], removed: Sequence[str]) -> None:
        # The others go last: there are never fewer than there might be.
        for address in added:
            upstream = self.make(address)
            upstream.on_lost = self.lookup.doubt
            self.members[address] = self.add(upstream)
        for address in removed:
            self.remove(self.members.pop(address))

    def _is_away(self) -> bool:
        states = {each.upstream.state for each in self.members.values()}
        return states == {UpstreamState.UNREACHABLE}
