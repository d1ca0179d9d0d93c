"""
Token usage of a batch, divided so that the callers' sums equal the upstream's.

Every number in a `usage` counts, whatever its depth and its name: tokens, cached
tokens, a cost.  Fractions are decimals here, as they are written: binary ones
would not add up to what the upstream billed.
"""

from collections.abc import Callable, Mapping, Sequence
from decimal import Context, Decimal
from itertools import zip_longest
from typing import Any

import msgspec

from abproxy.dialects.split import quote_words, unquote_words

__all__ = [
    "Usage",
    "add_up",
    "decode_usage",
    "divide",
    "encode_usage",
    "share_out",
]

Usage = Mapping[str, Any]
"""The `usage` of an answer: numbers, and whatever else a server says there."""

MORE_PLACES = 6
"""So many decimal places a share has more than the whole."""

LONGEST = 400
"""Digits on either side of the point; a double has no more, and needs no more."""

_exact = Context(prec=5 * LONGEST)

_decode: Callable[[bytes], Usage | None] = msgspec.json.Decoder(
    dict[str, Any] | None, float_hook=Decimal
).decode

_encode = msgspec.json.Encoder(decimal_format="number").encode


def decode_usage(raw: bytes) -> Usage:
    """
    Return the usage in *raw*, empty if it is null.

    Raises:
        msgspec.DecodeError: it is no object.
    """
    try:
        return _decode(raw) or {}
    except msgspec.DecodeError:
        quoted = quote_words(raw)
        if quoted is None:
            raise
        return _decode(quoted) or {}


def encode_usage(usage: Usage) -> bytes:
    """Write *usage*."""
    return unquote_words(_encode(usage))


def divide(usage: Usage, weights: Sequence[int]) -> list[Usage]:
    """
    Divide every number in *usage* in proportion to *weights*; all else is copied.

    Whole numbers are divided into whole ones, and fractions exactly.
    """
    return _divide_object(usage, weights, {})


_Known = dict[int, Sequence[int]]
"""The shares of whole numbers that were divided already: most stand there twice."""


def _divide_object(
    usage: Mapping[str, Any], weights: Sequence[int], known: _Known
) -> list[Mapping[str, Any]]:
    shares: list[dict[str, Any]] = [{} for _ in weights]
    for name, value in usage.items():
        divided = _divide(value, weights, known)
        for share, own in zip(shares, divided, strict=True):
            share[name] = own
    return list(shares)


def _divide(value: Any, weights: Sequence[int], known: _Known) -> Sequence[Any]:
    kind = type(value)
    if kind is int:
        if value not in known:
            known[value] = share_out(value, weights)
        return known[value]
    if kind is Decimal and _is_usual(value):
        return _divide_fraction(value, weights)
    if kind is dict:
        return _divide_object(value, weights, known)
    if kind is list:
        columns = [_divide(each, weights, known) for each in value]
        return [[column[at] for column in columns] for at in range(len(weights))]
    return [value] * len(weights)


def _is_usual(value: Decimal) -> bool:
    """Return whether *value* can be written out: `1e999999999` has as many digits."""
    _, digits, exponent = value.as_tuple()
    is_number = isinstance(exponent, int)
    return is_number and len(digits) <= LONGEST and abs(int(exponent)) <= LONGEST


def _divide_fraction(total: Decimal, weights: Sequence[int]) -> list[Decimal]:
    places = max(0, -int(total.as_tuple().exponent))
    finest = places + MORE_PLACES
    shares = share_out(int(_exact.scaleb(total, finest)), weights)
    return [_fraction(share, finest, places) for share in shares]


def _fraction(units: int, finest: int, places: int) -> Decimal:
    """Return *units* of 10 to the power of -*finest*, with *places* at least."""
    while finest > places and units % 10 == 0:
        units, finest = units // 10, finest - 1
    return _exact.scaleb(Decimal(units), -finest)


def add_up(usages: Sequence[Usage]) -> Usage:
    """Add up the numbers of *usages*; all else is as where it stands first."""
    whole = usages[0]
    for usage in usages[1:]:
        whole = _add(whole, usage)
    return whole


def _add(one: Any, two: Any) -> Any:
    kinds = {type(one), type(two)}
    if kinds == {int}:
        return one + two
    if kinds <= {int, Decimal}:
        return _exact.add(Decimal(one), Decimal(two))
    if kinds == {dict}:
        both = {name: _add(one[name], two[name]) for name in one if name in two}
        return {**one, **two, **both}
    if kinds == {list}:
        pairs = zip_longest(one, two)
        return [a if b is None else b if a is None else _add(a, b) for a, b in pairs]
    return two if one is None else one


def share_out(total: int, weights: Sequence[int]) -> list[int]:
    """
    Divide *total* in proportion to *weights*, in whole numbers.

    What rounding down leaves over goes to the largest remainders (Hamilton's
    method).  Weights that add up to the total are therefore the shares.
    """
    if not sum(weights):
        weights = [1] * len(weights)
    whole = sum(weights)
    shares = [total * weight // whole for weight in weights]
    order = sorted(
        range(len(weights)), key=lambda at: total * weights[at] % whole, reverse=True
    )
    for at in order[: total - sum(shares)]:
        shares[at] += 1
    return shares
