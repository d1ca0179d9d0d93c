"""A resolver of names in memory."""

from collections.abc import Sequence
from typing import Any

from attrs import define, field
from twisted.internet._resolver import HostResolution
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IHostnameResolver
from zope.interface import implementer


@implementer(IHostnameResolver)
@define(eq=False)
class Resolver:
    """Finds what the test says, at once or when the test says so."""

    found: Sequence[str] = ()
    is_slow: bool = False
    asked: list[tuple[str, Any]] = field(factory=list)

    def resolveHostName(  # noqa: N802
        self,
        receiver: Any,
        hostName: str,  # noqa: N803
        *_: Any,
        **_more: Any,
    ) -> HostResolution:
        """Look one name up."""
        self.asked.append((hostName, receiver))
        resolution = HostResolution(hostName)
        receiver.resolutionBegan(resolution)
        if not self.is_slow:
            self.answer(receiver)
        return resolution

    def answer(self, receiver: Any) -> None:
        """Tell all addresses."""
        for each in self.found:
            host, _, zone = each.partition("%")
            address = (
                IPv6Address("TCP", host, 0, 0, int(zone or 0))
                if ":" in host
                else IPv4Address("TCP", host, 0)
            )
            receiver.addressResolved(address)
        receiver.resolutionComplete()
