"""Names in `.env` that are no settings, but nearly: most often they are mistyped."""

from collections.abc import Collection, Iterable, Iterator

__all__ = ["find_typos"]

MOST_LETTERS = 2

LETTERS_FOR_ONE = 3
"""So many letters of a setting's name allow for one that is wrong, missing or more."""


def find_typos(
    names: Iterable[str], settings: Collection[str]
) -> Iterator[tuple[str, str]]:
    """Return *names* that are none of *settings*, each with the one it is close to."""
    for name in names:
        if name in settings:
            continue
        distance, closest = min((_distance(name.upper(), s), s) for s in settings)
        if distance <= min(MOST_LETTERS, len(closest) // LETTERS_FOR_ONE):
            yield name, closest


def _distance(one: str, other: str) -> int:
    """Return how many letters are wrong, missing, too many, or swapped."""
    if abs(len(one) - len(other)) > MOST_LETTERS:
        return MOST_LETTERS + 1
    before: list[int] = []
    last = list(range(len(other) + 1))
    for at, letter in enumerate(one, 1):
        row = [at]
        for to, wanted in enumerate(other, 1):
            row.append(
                min(last[to] + 1, row[-1] + 1, last[to - 1] + (letter != wanted))
            )
            is_swapped = one[at - 2 : at] == wanted + other[to - 2 : to - 1]
            if at > 1 and to > 1 and is_swapped:
                row[to] = min(row[to], before[to - 2] + 1)
        before, last = last, row
    return last[-1]
