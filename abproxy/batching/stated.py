"""
The rate limits that an upstream states in its answers.

OpenAI and those who follow it write, for requests and for tokens, `x-ratelimit-limit-`,
`-remaining-` and `-reset-` (https://platform.openai.com/docs/guides/rate-limits): the
last is the time until all of the limit is left again, as `120ms`, `1s` or `6m0s`, in
which it comes back little by little.  The IETF's draft (draft-ietf-httpapi-ratelimit-
headers) has `RateLimit-Limit`, `-Remaining` and `-Reset`, later one `RateLimit` with
`limit`, `remaining` and `reset`, or `r` and `t`, in seconds, after which all is back.
"""

import re
from email.utils import parsedate_to_datetime
from math import inf

from attrs import frozen

from abproxy.batching.allowance import MINUTE_S
from abproxy.http.messages import Response

__all__ = [
    "REQUESTS",
    "TOKENS",
    "Stated",
    "pause_stated_s",
    "read_stated",
    "retry_after_s",
]

REQUESTS, TOKENS = "requests", "tokens"

_NAME = re.compile(
    rb"(?:x-)?ratelimit-(limit|remaining|reset)(?:-(requests|tokens))?", re.IGNORECASE
)
_NUMBER = re.compile(rb"\s*(\d{1,15})")
_DURATION = re.compile(rb"\s*(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:([\d.]+)s)?\s*")
_MILLISECONDS = re.compile(rb"\s*([\d.]{1,15})ms\s*")
_PARAMETER = re.compile(
    rb"(?<![a-z])(limit|remaining|reset|r|t|q)\s*=\s*(\d{1,15})", re.IGNORECASE
)
_NEXT_ITEM = re.compile(rb",\s*\"")
_SHORT = {b"r": b"remaining", b"t": b"reset", b"q": b"limit"}

LONGEST_S = 86_400.0
"""A longer time until the reset is none, but a date that cannot be relied upon."""


@frozen
class Stated:
    """What one answer says is left, of requests or of tokens."""

    of: str
    limit: float
    """How much is allowed in all; infinite if that is not said."""

    left: float
    reset_s: float

    refills: bool
    """Whether it comes back little by little, and not all of it at once."""


def read_stated(response: Response) -> list[Stated]:
    """Return what *response* says is left of requests and of tokens."""
    said: dict[str, dict[bytes, bytes]] = {}
    for name, value in response.headers:
        # Nearly all lines are others.
        if name[:1] not in b"xXrR" or b"atelimit" not in name.lower():
            continue
        found = _NAME.fullmatch(name)
        if found is not None:
            of = (found[2] or b"requests").lower().decode()
            said.setdefault(of, {})[found[1].lower()] = value
        elif name.lower() in {b"ratelimit", b"ratelimit-policy"}:
            said.setdefault(REQUESTS, {}).update(_parameters(value))
    stated = (_stated(of, values) for of, values in said.items())
    return [each for each in stated if each is not None]


def _parameters(value: bytes) -> dict[bytes, bytes]:
    """Return what the first item of a structured field says."""
    found = _PARAMETER.findall(_NEXT_ITEM.split(value, 1)[0])
    lower = ((name.lower(), number) for name, number in found)
    return {_SHORT.get(name, name): number for name, number in lower}


def _stated(of: str, values: dict[bytes, bytes]) -> Stated | None:
    left = _NUMBER.match(values.get(b"remaining", b""))
    if left is None:
        return None
    limit = _NUMBER.match(values.get(b"limit", b""))
    reset = values.get(b"reset", b"")
    reset_s = _seconds(reset)
    return Stated(
        of=of,
        limit=float(limit[1]) if limit and int(limit[1]) else inf,
        left=float(left[1]),
        reset_s=MINUTE_S if reset_s is None else reset_s,
        refills=not reset.strip().isdigit(),
    )


def _seconds(value: bytes) -> float | None:
    """Read a time as `120ms`, `1s`, `6m0s` or a number of seconds."""
    value = value.strip()
    try:
        if found := _MILLISECONDS.fullmatch(value):
            return float(found[1]) / 1000
        if _NUMBER.fullmatch(value):
            seconds = float(value)
        else:
            found = _DURATION.fullmatch(value)
            if found is None or not any(found.groups()):
                return None
            days, hours, minutes, seconds = (float(n or 0) for n in found.groups())
            seconds += MINUTE_S * (minutes + 60 * (hours + 24 * days))
    except ValueError:
        return None
    return seconds if seconds <= LONGEST_S else None


def pause_stated_s(response: Response) -> float:
    """Return for how many seconds a refusal asks, or until what is used up is back."""
    used_up = [each.reset_s for each in read_stated(response) if each.left < 1]
    return retry_after_s(response) or min(max(used_up, default=0.0), MINUTE_S)


def retry_after_s(response: Response) -> float:
    """
    Read for how many seconds nothing more should be sent; 0 if that is not said.

    `Retry-After` is a number of seconds or a date (RFC 9110, section 10.2.3);
    `retry-after-ms`, which Azure and OpenAI send beside it, is more exact.
    """
    exact = _header(response, b"retry-after-ms")
    said = _header(response, b"retry-after")
    if exact.isdigit():
        return float(exact) / 1000
    if said.isdigit():
        return float(said)
    try:
        until = parsedate_to_datetime(said.decode("latin-1"))
        now = parsedate_to_datetime(_header(response, b"date").decode("latin-1"))
        return max((until - now).total_seconds(), 0.0)
    except (TypeError, ValueError):
        return 0.0


def _header(response: Response, wanted: bytes) -> bytes:
    found = (value for name, value in response.headers if name.lower() == wanted)
    return next(found, b"")
