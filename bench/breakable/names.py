"""A DNS server that changes its answers, and a resolver that asks it."""

from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any

from attrs import define, field
from twisted.internet._resolver import HostResolution
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred, succeed
from twisted.internet.interfaces import IHostnameResolver
from twisted.names import dns
from twisted.names.client import Resolver
from twisted.names.error import DNSServerError, DomainError
from twisted.names.server import DNSServerFactory
from twisted.python.failure import Failure
from zope.interface import implementer

__all__ = ["NameServer", "Names"]

RECORDS: dict[int, Any] = {4: dns.Record_A, 6: dns.Record_AAAA}


class _Factory(DNSServerFactory):
    noisy = False


@define(eq=False)
class NameServer:
    """Answers with what it is told to, from then on."""

    reactor: Any
    ip: str = "127.0.0.1"
    addresses: dict[str, Sequence[str]] = field(init=False, factory=dict)
    """The addresses of each name, IPv4 and IPv6; other names do not exist."""

    is_broken: bool = field(init=False, default=False)
    """Whether it answers all questions with an error."""

    asked: list[str] = field(init=False, factory=list)
    """The names that were asked for, once for each kind of address."""

    _port: Any = field(init=False, default=None)

    @property
    def port(self) -> int:
        """Where it answers."""
        return int(self._port.getHost().port)

    def start(self) -> None:
        """Open a free port, over UDP."""
        protocol = dns.DNSDatagramProtocol(_Factory(clients=[self]))
        protocol.noisy = False
        self._port = self.reactor.listenUDP(0, protocol, interface=self.ip)

    def stop(self) -> Deferred[Any]:
        """Close it."""
        return maybeDeferred(self._port.stopListening)

    def query(self, query: dns.Query, timeout: Any = None) -> Deferred[Any]:
        """Answer one question, as the server asks it."""
        del timeout
        name = query.name.name.decode()
        self.asked.append(name)
        if self.is_broken:
            return _failed(DNSServerError())
        if name not in self.addresses:
            return _failed(DomainError())
        payloads = [
            RECORDS[ip_address(each).version](each, ttl=0)
            for each in self.addresses[name]
        ]
        answers = [
            dns.RRHeader(name, each.TYPE, ttl=0, payload=each)
            for each in payloads
            if query.type == each.TYPE
        ]
        return succeed((answers, [], []))


def _failed(error: Exception) -> Deferred[Any]:
    failed: Deferred[Any] = Deferred()
    failed.errback(error)
    return failed


@implementer(IHostnameResolver)
@define(eq=False)
class Names:
    """Finds names as a name server at a port says, IPv6 addresses first."""

    reactor: Any
    port: int
    ip: str = "127.0.0.1"
    asking: int = field(init=False, default=0)
    """Lookups that are not answered yet."""

    def resolveHostName(  # noqa: N802
        self,
        receiver: Any,
        hostName: str,  # noqa: N803
        portNumber: int = 0,  # noqa: N803
        *_: Any,
        **_more: Any,
    ) -> HostResolution:
        """Ask for the addresses of both families."""
        resolution = HostResolution(hostName)
        receiver.resolutionBegan(resolution)
        self.asking += 1
        resolver = Resolver(
            servers=[(self.ip, self.port)], timeout=(1,), reactor=self.reactor
        )
        asked = [
            resolver.lookupIPV6Address(hostName).addErrback(_nothing),
            resolver.lookupAddress(hostName).addErrback(_nothing),
        ]

        def tell(found: Sequence[Any]) -> None:
            for answers, _authority, _additional in found:
                for each in answers:
                    receiver.addressResolved(_address_of(each.payload, portNumber))
            self.asking -= 1
            receiver.resolutionComplete()

        gatherResults(asked).addCallback(tell)
        return resolution


def _nothing(_failure: Failure) -> Any:
    return [], [], []


def _address_of(record: Any, port: int) -> IPv4Address | IPv6Address:
    if isinstance(record, dns.Record_A):
        return IPv4Address("TCP", record.dottedQuad(), port)
    host = str(ip_address(record.address))
    return IPv6Address("TCP", host, port)
