"""
The address of a client behind trusted proxies: `Forwarded` and `X-Forwarded-For`.

Lines are read from the right, as each proxy adds what it knows at the end: what
stands further left than the first address that is not trusted was written by the
client, and may be anything.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

from attrs import frozen
from twisted.web.http_headers import Headers

__all__ = ["NO_PROXIES", "UNIX", "TrustedProxies", "counted_as", "plain_address"]

UNIX = "unix"
"""What stands for all that connect to a Unix socket."""

MOST_PROXIES = 32
"""So many addresses are looked at, and so many places where one may begin."""

SAME_CLIENT_BITS = 64
"""An IPv6 network of this size is one client: each customer has at least that."""

UNKNOWN = ""
"""A proxy that was passed, but did not say by whom."""

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]++"  # noqa: S105
_QUOTED = r'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*+"'
_PAIR = rf"(?:{_TOKEN}=(?:{_TOKEN}|{_QUOTED})[ \t]*+)?+"
_ELEMENT = re.compile(rf"[ \t]*+{_PAIR}(?:;[ \t]*+{_PAIR})*+")
_FOR = re.compile(rf"({_TOKEN})=(?:({_TOKEN})|({_QUOTED}))")

_NODE = re.compile(
    r"(?:([0-9.]+)|\[([0-9A-Fa-f:.]+)\])(?::(?:[0-9]{1,5}|_[0-9A-Za-z._-]+))?"
)
_NO_ADDRESS = re.compile(
    r"(?:unknown|_[0-9A-Za-z._-]+)(?::(?:[0-9]{1,5}|_[0-9A-Za-z._-]+))?", re.IGNORECASE
)

_MALFORMED = "not what RFC 7239, or custom, allows"

Address = IPv4Address | IPv6Address


def _read(text: str) -> Address:
    address = ip_address(text)
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped or address


def plain_address(host: str) -> str:
    """Return the address *host* as IPv4 if it is IPv4 in the clothes of IPv6."""
    if not host.startswith("::"):
        return host
    try:
        return str(_read(host))
    except ValueError:
        return host


@lru_cache(1000)
def counted_as(host: str) -> str:
    """
    Return what limits count *host* as: of IPv6 its network of 64 bits.

    A machine with IPv6 has as many addresses in that network as it likes.
    """
    if ":" not in host:
        return host
    try:
        return str(ip_network((host.partition("%")[0], SAME_CLIENT_BITS), strict=False))
    except ValueError:
        return host


@frozen
class TrustedProxies:
    """The proxies in front of us whose word on addresses counts."""

    networks: Sequence[IPv4Network | IPv6Network] = ()
    has_unix: bool = False
    """Whether those are trusted that connect to a Unix socket."""

    @property
    def is_any(self) -> bool:
        """Return whether there are any."""
        return bool(self.networks) or self.has_unix

    @classmethod
    def of(cls, words: Iterable[str]) -> "TrustedProxies":
        """Return the proxies that settings name: addresses, networks, `unix`."""
        words = list(words)
        networks = tuple(ip_network(word) for word in words if word != UNIX)
        return cls(networks, UNIX in words)

    def trusts(self, host: str) -> bool:
        """Return whether *host*, empty for a Unix socket, is one of them."""
        if not host:
            return self.has_unix
        try:
            address = _read(host)
        except ValueError:
            return False
        return any(address in network for network in self.networks)

    def client_of(self, peer: str, headers: Headers) -> str:
        """
        Return the address of the client that trusted proxies tell of in *headers*.

        The *peer* is trusted.  It is the client itself if it says nothing that can be
        understood.  Where a proxy does not tell the address, the client is the last
        one of which an address is known.
        """
        known = peer
        try:
            for count, host in enumerate(_told(headers)):
                if host == UNKNOWN:
                    return known
                if count == MOST_PROXIES:
                    return peer
                known = host
                if not self.trusts(host):
                    return host
        except ValueError:
            return peer
        return known


NO_PROXIES = TrustedProxies()


def _told(headers: Headers) -> Iterator[str]:
    """Return the addresses in *headers*, from the last one on."""
    forwarded = headers.getRawHeaders(b"Forwarded")
    if forwarded is not None:
        for line in reversed(forwarded):
            yield from map(_for, _elements(line.decode("latin-1")))
    else:
        for line in reversed(headers.getRawHeaders(b"X-Forwarded-For", [])):
            for text in reversed(line.decode("latin-1").split(",")):
                if text := text.strip(" \t"):
                    yield _host(text, bare=True)


def _elements(line: str) -> Iterator[str]:
    """Return the elements of a *line* of `Forwarded`, from the last one on."""
    end = len(line)
    while end >= 0:
        start = end
        for _ in range(MOST_PROXIES):  # a comma may be within quotes
            start = line.rfind(",", 0, max(start, 0))
            if _ELEMENT.fullmatch(line, start + 1, end):
                break
            if start < 0:
                raise ValueError(_MALFORMED)
        else:
            raise ValueError(_MALFORMED)
        if element := line[start + 1 : end].strip(" \t"):
            yield element
        end = start


def _for(element: str) -> str:
    """Return the host in an *element* of `Forwarded` (RFC 7239, section 6)."""
    found = [each for each in _FOR.findall(element) if each[0].lower() == "for"]
    if not found:
        return UNKNOWN
    if len(found) > 1:
        raise ValueError(_MALFORMED)
    [(_, token, quoted)] = found
    return _host(token or re.sub(r"\\(.)", r"\1", quoted[1:-1]), bare=False)


def _host(text: str, *, bare: bool) -> str:
    """Return the address in *text*, which may be IPv6 without brackets if *bare*."""
    if _NO_ADDRESS.fullmatch(text):
        return UNKNOWN
    node = _NODE.fullmatch(text)
    if node is not None:
        return str(_read(node[1] or node[2]))
    if not bare or "%" in text:
        raise ValueError(_MALFORMED)
    return str(_read(text))
