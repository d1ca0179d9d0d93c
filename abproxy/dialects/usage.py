"""What a batch cost is shared out so that the shares add up to the whole."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["Usage", "add_up", "divide", "share_out"]

Usage = Mapping[str, Any]
"""The `usage` of an answer: counts, and whatever else a server says there."""


def divide(usage: Usage, weights: Sequence[int]) -> list[Usage]:
    """Divide the counts in *usage* in proportion to *weights*; all else is copied."""
    shares = [dict(usage) for _ in weights]
    divided: dict[int, list[int]] = {}
    for name, total in _counts(usage).items():
        if total not in divided:
            divided[total] = share_out(total, weights)
        for share, own in zip(shares, divided[total], strict=True):
            share[name] = own
    return list(shares)


def add_up(usages: Sequence[Usage]) -> Usage:
    """Add up the counts of *usages*; all else is as in the first."""
    if len(usages) == 1:
        return usages[0]
    added: Counter[str] = Counter()
    for usage in usages:
        added.update(_counts(usage))
    return {**usages[0], **added}


def _counts(usage: Usage) -> dict[str, int]:
    return {name: value for name, value in usage.items() if type(value) is int}


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
