"""
Which texts of one request are computed together.

Texts of similar length, sorted, in groups small enough for the cache: padding
is work for nothing, and so are multiplications that wait for memory.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

__all__ = ("in_groups", "plan")

Text = TypeVar("Text")
Result = TypeVar("Result")

_MAX_GROUP_TOKENS = 512
_MAX_PADDED = 1.25
"""A group may be this much larger than the tokens that are really in it."""

_SLACK_TOKENS = 16
"""Padding that costs less than one more pass over the weights."""


def in_groups(
    texts: Sequence[Sequence[Text]],
    compute: Callable[[list[Sequence[Text]]], list[Result]],
) -> list[Result]:
    """Run *compute* on groups of *texts* and put the results in the texts' order."""
    results: dict[int, Result] = {}
    for group in plan([len(text) for text in texts]):
        found = compute([texts[index] for index in group])
        results.update(zip(group, found, strict=True))
    return [results[index] for index in range(len(texts))]


def plan(lengths: Sequence[int]) -> list[list[int]]:
    """Indices of *lengths*, shortest first, cut into groups."""
    groups: list[list[int]] = []
    tokens = 0
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        longest = lengths[index]
        if groups and _fits(len(groups[-1]) + 1, longest, tokens + longest):
            groups[-1].append(index)
            tokens += longest
        else:
            groups.append([index])
            tokens = longest
    return groups


def _fits(count: int, longest: int, tokens: int) -> bool:
    padded = count * longest
    return (
        padded <= _MAX_GROUP_TOKENS and padded <= tokens * _MAX_PADDED + _SLACK_TOKENS
    )
