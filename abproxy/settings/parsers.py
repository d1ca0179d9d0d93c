"""
Parse the text of a setting into its value.

Each parser raises a ValueError that says what it expected and what it got.
"""

import re
from collections.abc import Callable, Sequence
from ipaddress import IPv6Network, ip_network
from math import isfinite
from pathlib import Path
from urllib.parse import urlsplit

import idna
from twisted.internet.abstract import isIPv6Address

from abproxy.dialects.routes import MEMBERS_THAT_COUNT
from abproxy.http.forwarded import UNIX, plain_address
from abproxy.http.headers import OF_ONE_HOP
from abproxy.http.sharing import MEMBER, may_be_ignored

__all__ = [
    "at_least",
    "cache_url",
    "file",
    "header_lines",
    "hedge_after",
    "ignored_names",
    "key",
    "keys",
    "listed",
    "milliseconds",
    "one_of",
    "path_prefix",
    "port",
    "proxies",
    "rate",
    "seconds",
    "seconds_or_none",
    "servers",
    "shared_names",
    "some_of",
    "url",
    "weighted",
    "yes_or_no",
]

MAX_PORT = 65535

LONGEST_HOST = 253
"""Characters of the longest name that can be looked up."""

_LABEL = re.compile(r"[\w-]{1,63}", re.ASCII)
"""A name between two dots."""


NOT_FIXED = (OF_ONE_HOP - {b"host"}) | {b"accept-encoding", b"content-type"}
"""Lines that speak of one connection or body, and are written anew for each."""


def _working_directory() -> Path:
    try:
        return Path.cwd()
    except OSError:  # it was removed
        return Path("/")


STARTED_IN = _working_directory()
"""Where relative paths begin: `twistd` may change its directory later."""


def at_least(least: int) -> Callable[[str], int]:
    """Return a parser for whole numbers not below *least*."""

    def read(text: str) -> int:
        message = f"expected a whole number, {least} or more, not {text!r}"
        try:
            number = int(text)
        except ValueError:
            raise ValueError(message) from None
        if number < least:
            raise ValueError(message)
        return number

    return read


def _duration(text: str, unit: str, *, zero: bool) -> float:
    message = f"expected a number of {unit}, not {text!r}"
    try:
        number = float(text)
    except ValueError:
        raise ValueError(message) from None
    if not isfinite(number) or number < 0 or (number == 0 and not zero):
        raise ValueError(message)
    return number


def milliseconds(text: str) -> float:
    """Parse a number of milliseconds, which may be 0."""
    return _duration(text, "milliseconds, 0 or more", zero=True)


def seconds(text: str) -> float:
    """Parse a number of seconds, which may not be 0."""
    return _duration(text, "seconds greater than 0", zero=False)


def seconds_or_none(text: str) -> float:
    """Parse a number of seconds, which may be 0."""
    return _duration(text, "seconds, 0 or more", zero=True)


def hedge_after(text: str) -> str:
    """Parse a number of seconds, which may not be 0, or `p95`."""
    if text == "p95":
        return text
    return f"{_duration(text, 'seconds greater than 0, or p95', zero=False):g}"


def rate(text: str) -> float:
    """Parse a rate per second, which may not be 0."""
    return _duration(text, "inputs per second greater than 0", zero=False)


def port(text: str) -> str:
    """Parse a port number, or a Twisted endpoint, which has a colon."""
    if ":" in text:
        return text
    if not text.isdecimal() or int(text) > MAX_PORT:
        raise ValueError(f"expected a port from 0 to {MAX_PORT}, not {text!r}")
    return text


def path_prefix(text: str) -> str:
    """Parse the beginning of paths, and drop a slash at its end."""
    if not re.fullmatch(r"(/[!$&-.0-;=@A-Z_a-z~]+)+/?", text):
        raise ValueError(f"expected the beginning of a path, like /a, not {text!r}")
    return text.rstrip("/")


def file(text: str) -> str:
    """Parse the path of a file, which counts from where the process was started."""
    return str(STARTED_IN / text)


def url(text: str) -> str:
    """Parse the base URL of a server, and drop a slash at its end."""
    try:
        parts = urlsplit(text)
        known = parts.scheme in {"http", "https"} and bool(parts.hostname)
        known = known and parts.port != 0
        known = known and text.isprintable() and " " not in text
    except ValueError:
        known = False
    if not known:
        shown = "one with credentials" if "@" in text else repr(text)
        raise ValueError(f"expected a URL like http://host:port, not {shown}")
    if any(mark in text for mark in "@?#"):
        raise ValueError("expected a URL without user, query or fragment")
    if not text.isascii():
        text = _in_ascii(text, parts.netloc, parts.port)
    host = urlsplit(text).hostname or ""
    if not _could_be_found(host):
        raise ValueError(f"expected the name or address of a host, not {host!r}")
    return text.rstrip("/")


def servers(text: str) -> str:
    """
    Parse the base URLs of servers, separated by commas; each may end in `=WEIGHT`.

    Returns them as one text, which `weighted` takes apart.
    """
    words = [word for each in text.split(",") if (word := each.strip())]
    read = [_server(word) for word in words] or [(url(text), 1.0)]
    places = set()
    for each, _ in read:
        place = _place_of(each)
        if place in places:
            raise ValueError(f"expected each server once, not twice {each!r}")
        places.add(place)
    return ",".join(
        each if weight == 1 else f"{each}={weight:g}" for each, weight in read
    )


def _place_of(text: str) -> tuple[str, int, str]:
    """Return where a *text* of `url` leads, which may be written in several ways."""
    parts = urlsplit(text)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return parts.hostname or "", port, parts.path


def weighted(text: str) -> list[tuple[str, float]]:
    """Return the base URL and the weight of each server in a *text* of `servers`."""
    return [_server(word) for word in text.split(",")]


def hosts(text: str) -> frozenset[str]:
    """Return the names of all hosts in a *text* of `servers`."""
    return frozenset(urlsplit(each).hostname or "" for each, _ in weighted(text))


def _server(word: str) -> tuple[str, float]:
    place, equals, said = word.rpartition("=")
    if not equals:
        return url(word), 1.0
    try:
        weight = float(said)
    except ValueError:
        # In a path it is no weight; what it would make of a host is none.
        if urlsplit(word).path:
            return url(word), 1.0
        weight = 0.0
    if not isfinite(weight) or weight <= 0:
        raise ValueError(f"expected a weight greater than 0, not {said!r}")
    return url(place), weight


def _in_ascii(text: str, place: str, port: int | None) -> str:
    """Return a URL with the name of its host as name servers know it."""
    name = place if port is None else place.rpartition(":")[0]
    labels = [each if each.isascii() else _label(each) for each in name.split(".")]
    written = text.replace(name, ".".join(labels), 1)
    if not written.isascii():
        raise ValueError("expected a path of ASCII characters, others as %..")
    return written


def _label(label: str) -> str:
    try:
        return idna.encode(label, uts46=True).decode("ascii")
    except UnicodeError:
        raise ValueError(f"expected the name of a host, not {label!r}") from None


def _could_be_found(host: str) -> bool:
    """Return whether a resolver can find *host*: it may have underscores."""
    if ":" in host:
        return isIPv6Address(host)
    whole = host.removesuffix(".")
    labels = whole.split(".")
    return len(whole) <= LONGEST_HOST and all(map(_LABEL.fullmatch, labels))


def cache_url(text: str) -> str:
    """Parse the URL of a shared cache; the error message does not repeat it."""
    from abproxy.reuse.redis import read_address  # noqa: PLC0415  large

    read_address(text)
    return text


def key(text: str) -> str:
    """Parse a key; the error message does not repeat a bad one."""
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("expected a key of visible ASCII characters")
    return text


def keys(text: str) -> tuple[str, ...]:
    """Parse keys that are separated by commas; there must be at least one."""
    read = tuple(key(word.strip()) for word in text.split(",") if word.strip())
    if not read:
        raise ValueError("expected keys, found none; to ask for none leave it empty")
    return read


def proxies(text: str) -> tuple[str, ...]:
    """Parse addresses and networks of proxies, and `unix`, separated by commas."""
    words = [word for each in text.split(",") if (word := each.strip())]
    if not words:
        raise ValueError("expected addresses, found none; leave it empty for none")
    return tuple(map(_proxy, words))


def _proxy(word: str) -> str:
    if word.lower() == UNIX:
        return UNIX
    try:
        network = ip_network(plain_address(word))
        if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped:
            raise ValueError("write a network of IPv4 as IPv4")  # noqa: TRY301
        return str(network)
    except ValueError as error:
        raise ValueError(
            "expected an address like 192.0.2.1, a network like 10.0.0.0/8 or "
            f"2001:db8::/32, or unix: {error}"
        ) from None


# What may share a batch, and headers for the inference server

_WORD = r"[!#$%&'+^_`|~0-9A-Za-z.-]+"
_LINE_NAME = re.compile(rf"{_WORD}\*?|\*")
_MEMBER_NAME = re.compile(r'[^"\\*\x00-\x1f]+')
_LINE = re.compile(rf"({_WORD}):[ \t]*([!-~](?:[ -~]*[!-~])?)")


def shared_names(text: str) -> tuple[str, ...]:
    """Parse names of headers, and of members as `body.NAME`."""
    names = [name for each in text.split(",") if (name := each.strip())]
    if not names:
        raise ValueError("expected names, found none; leave it empty for none")
    return tuple(map(_shared_name, names))


def _shared_name(name: str) -> str:
    is_member = name.lower().startswith(MEMBER)
    member = name[len(MEMBER) :]
    if is_member and _MEMBER_NAME.fullmatch(member):
        return MEMBER + member
    if is_member or not _LINE_NAME.fullmatch(name):
        raise ValueError(
            "expected the name of a header line, which may end in *, or body.NAME for "
            f"a member of the body, not {name!r}"
        )
    return name.lower()


def ignored_names(text: str) -> tuple[str, ...]:
    """Parse names that may be ignored; a credential is refused."""
    names = shared_names(text)
    for name in names:
        if name.removeprefix(MEMBER) in MEMBERS_THAT_COUNT and MEMBER in name:
            raise ValueError(f"answers depend on {name}, so it cannot be ignored")
        if MEMBER not in name and not may_be_ignored(name):
            raise ValueError(
                f"{name} is, or may be, a credential: if it were ignored, one client "
                "would get in with the key of another"
            )
    return names


def header_lines(text: str) -> tuple[tuple[str, str], ...]:
    """
    Parse headers that are separated by `|` or newlines.

    Error messages do not repeat a value: it may be a key.
    """
    pieces = [each.strip(" \t") for each in re.split(r"\||\r?\n", text)]
    lines = [_LINE.fullmatch(piece) for piece in pieces if piece]
    if not all(lines):
        at = 1 + lines.index(None)
        raise ValueError(f"expected `Name: value` in visible ASCII, not line {at}")
    named = [(line[1], line[2]) for line in lines if line is not None]
    names = [name.lower() for name, _ in named]
    for name, value in named:
        if name.lower().encode() in NOT_FIXED or names.count(name.lower()) > 1:
            raise ValueError(f"{name} cannot be set, or not twice")
        if name.lower() == "host" and " " in value:
            raise ValueError("expected a Host without blanks")
    return tuple(named)


def yes_or_no(text: str) -> bool:
    """Parse a boolean."""
    known = {"1": True, "true": True, "yes": True, "on": True}
    known |= {"0": False, "false": False, "no": False, "off": False}
    try:
        return known[text.lower()]
    except KeyError:
        raise ValueError(f"expected true or false, not {text!r}") from None


def one_of(*names: str) -> Callable[[str], str]:
    """Return a parser that accepts one of the *names*."""

    def read(text: str) -> str:
        if text not in names:
            raise ValueError(f"expected one of {', '.join(names)}, not {text!r}")
        return text

    return read


def some_of(*names: str) -> Callable[[str], frozenset[str]]:
    """Return a parser for `all`, `none`, or some *names* separated by commas."""

    def read(text: str) -> frozenset[str]:
        if text in {"all", "none"}:
            return frozenset(names if text == "all" else ())
        chosen = frozenset(word.strip() for word in text.split(","))
        if not chosen <= frozenset(names):
            known = ", ".join(names)
            raise ValueError(f"expected all, none, or some of {known}, not {text!r}")
        return chosen

    return read


def listed(chosen: frozenset[str], names: Sequence[str]) -> str:
    """Return the *chosen* names in the form that `some_of` parses."""
    if len(chosen) in {0, len(names)}:
        return "all" if chosen else "none"
    return ",".join(name for name in names if name in chosen)
