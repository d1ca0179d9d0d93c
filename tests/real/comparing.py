"""
What tells an answer apart from the one that the server gives directly.

Status, header lines, members, words and shape must be equal.  Numbers of a row
need only be close: a real model computes a text in other company with other
last digits.  What differs between two direct answers to the same call (an id, a
time) is not compared.
"""

import base64
import binascii
import json
import re
import struct
from collections.abc import Iterator, Sequence
from typing import Any

from attrs import define, field, frozen

from real.asking import Answer

TOLERANCE = 1e-3
"""Numbers of rows of length 1 that differ by less are equal; the rows of two
texts that are asked here differ by more than a hundred times as much."""

SHORTEST_ROW = 4
"""Numbers in base64: shorter texts are words."""

NOT_COMPARED = frozenset(
    {
        *("connection", "keep-alive", "transfer-encoding", "content-length", "date"),
        # As docs/compatibility.md says: added, left out, or counted again.
        *("server-timing", "etag", "set-cookie", "via"),
    }
)
"""Header lines that belong to a connection, or differ on purpose."""

OF_ONE_REQUEST = ("x-litellm-", "llm_provider-")
"""Header lines in which a gateway describes one request: its time, id and cost."""

Differences = list[str]


@define
class Closeness:
    """The greatest difference between two numbers that were taken for equal."""

    greatest: float = 0.0

    def are_close(self, one: Sequence[float], other: Sequence[float]) -> bool:
        """Compare two rows."""
        apart = [abs(a - b) for a, b in zip(one, other, strict=True)]
        # Written so that NaN is far from everything.
        if not all(each <= TOLERANCE for each in apart):
            return False
        self.greatest = max(self.greatest, *apart)
        return True


@frozen(kw_only=True)
class Expected:
    """What a server answers directly: asked twice."""

    answer: Answer
    volatile: frozenset[str] = field(factory=frozenset)
    """Places that differ between the two."""

    @classmethod
    def of(cls, first: Answer, second: Answer) -> "Expected":
        """Learn from two answers to the same call."""
        found = _compare(first, second, Closeness(), frozenset())
        return cls(answer=first, volatile=frozenset(place for place, _ in found))

    def differences(
        self, answer: Answer, closeness: Closeness, *, is_shared: bool
    ) -> Differences:
        """
        Compare *answer* with this one.

        Args:
            answer: what came through the proxy.
            closeness: takes note of numbers that are close.
            is_shared: it may have been in a batch, where token counts are
                shared out by length: they are summed up elsewhere.
        """
        found = _compare(self.answer, answer, closeness, self.volatile)
        return [
            f"{place}: {what}"
            for place, what in found
            if not (is_shared and place.startswith("body.usage."))
        ]


def usage_of(answer: Answer) -> int:
    """Return the tokens that *answer* says it cost, 0 if it says nothing."""
    try:
        usage = json.loads(answer.body)["usage"]["prompt_tokens"]
    except (ValueError, KeyError, TypeError):
        return 0
    return usage if isinstance(usage, int) else 0


def shortened(answer: Answer) -> str:
    """Describe *answer* in one line, with long rows cut."""
    text = answer.body.decode(errors="replace")
    text = re.sub(r"((?:-?\d[\d.e+-]*,\s*){2})(?:-?\d[\d.e+-]*,\s*){4,}", r"\1…,", text)
    text = re.sub(r'"([A-Za-z0-9+/]{12})[A-Za-z0-9+/=]{100,}"', r'"\1…"', text)
    return f"{answer.status} {text[:300]}{'…' * (len(text) > 300)}"


def _compare(
    one: Answer, other: Answer, closeness: Closeness, volatile: frozenset[str]
) -> list[tuple[str, str]]:
    found = [
        *_values(one.status, other.status, "status", closeness),
        *_headers(one, other),
        *_bodies(one, other, closeness),
    ]
    return [(place, what) for place, what in found if place not in volatile]


def _headers(one: Answer, other: Answer) -> Iterator[tuple[str, str]]:
    before, after = dict(one.header), dict(other.header)
    for name in sorted({*before, *after} - NOT_COMPARED):
        differs = before.get(name) != after.get(name)
        if differs and not name.startswith(OF_ONE_REQUEST):
            yield f"header {name}", f"{before.get(name)!r}, not {after.get(name)!r}"


def _bodies(
    one: Answer, other: Answer, closeness: Closeness
) -> Iterator[tuple[str, str]]:
    try:
        before, after = json.loads(one.body), json.loads(other.body)
    except ValueError:
        if one.body != other.body:
            texts = [each.body.decode(errors="replace") for each in (one, other)]
            yield "body", _not(*texts)
        return
    yield from _values(before, after, "body", closeness)


def _values(
    one: Any, other: Any, place: str, closeness: Closeness
) -> Iterator[tuple[str, str]]:
    if isinstance(one, dict) and isinstance(other, dict):
        yield from _objects(one, other, place, closeness)
    elif isinstance(one, list) and isinstance(other, list):
        yield from _lists(one, other, place, closeness)
    elif type(one) is not type(other) or (
        one != other and not _are_close_base64(one, other, closeness)
    ):
        yield place, _not(one, other)


def _objects(
    one: dict[str, Any], other: dict[str, Any], place: str, closeness: Closeness
) -> Iterator[tuple[str, str]]:
    for name in sorted(one.keys() - other.keys()):
        yield f"{place}.{name}", "is missing"
    for name in sorted(other.keys() - one.keys()):
        yield f"{place}.{name}", "is new"
    for name in sorted(one.keys() & other.keys()):
        yield from _values(one[name], other[name], f"{place}.{name}", closeness)


def _lists(
    one: list[Any], other: list[Any], place: str, closeness: Closeness
) -> Iterator[tuple[str, str]]:
    if len(one) != len(other):
        yield place, f"{len(one)} elements, not {len(other)}"
    elif _is_row(one) and _is_row(other):
        if not closeness.are_close(one, other):
            yield place, "another row"
    else:
        for at, (before, after) in enumerate(zip(one, other, strict=True)):
            yield from _values(before, after, f"{place}[{at}]", closeness)


def _is_row(values: list[Any]) -> bool:
    numbers = all(isinstance(each, int | float) for each in values)
    return numbers and any(isinstance(each, float) for each in values)


def _are_close_base64(one: Any, other: Any, closeness: Closeness) -> bool:
    if not isinstance(one, str) or not isinstance(other, str):
        return False
    before, after = _row_of(one), _row_of(other)
    return len(before) == len(after) >= SHORTEST_ROW and closeness.are_close(
        before, after
    )


def _row_of(text: str) -> tuple[float, ...]:
    try:
        packed = base64.b64decode(text, validate=True)
        return struct.unpack(f"<{len(packed) // 4}f", packed)
    except (binascii.Error, ValueError, struct.error):
        return ()


def _not(one: Any, other: Any) -> str:
    return f"{_named(one)}, not {_named(other)}"


def _named(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 120 else f"{text[:120]}…"
