"""
Which of many waiting parts leave together: those of similar length.

An upstream that pads computes every input as if it were the longest beside
it.  So the oldest part leaves with those closest to it in length.  Nobody pays
with waiting for ever: a part that has been overtaken by a few batches goes
first, whatever its length.
"""

from collections.abc import Sequence

from abproxy.batching.part import Caps, Part

__all__ = ["MAX_OVERTAKEN", "WINDOW_BATCHES", "choose"]

MAX_OVERTAKEN = 4
"""How many batches may leave with younger parts before a part goes first."""

WINDOW_BATCHES = 8
"""How many batches' worth of parts, from the oldest on, are looked at."""


def choose(window: Sequence[Part], caps: Caps) -> list[Part]:
    """
    Choose the parts of the next batch, and note whom they overtake.

    Args:
        window: waiting parts, the oldest first.
        caps: what fits into a batch.

    Returns:
        The parts, by length; at least the oldest one.
    """
    oldest = window[0]

    def reluctance(part: Part) -> tuple[bool, float]:
        is_patient = part is not oldest and part.overtaken < MAX_OVERTAKEN
        return is_patient, is_patient * abs(part.mean_size - oldest.mean_size)

    batch = _as_many_as_fit(sorted(window, key=reluctance), caps)
    _note_overtaken(window, batch)
    return sorted(batch, key=lambda part: part.mean_size)


def _as_many_as_fit(wanted: Sequence[Part], caps: Caps) -> list[Part]:
    batch: list[Part] = []
    items = size = 0
    for part in wanted[: caps.calls]:
        items += len(part.items)
        size += part.size
        if batch and (items > caps.items or size > caps.size):
            break
        batch.append(part)
    return batch


def _note_overtaken(window: Sequence[Part], batch: Sequence[Part]) -> None:
    leaving = set(batch)
    youngest = max(part.turn for part in batch)
    for part in window:
        if part.turn < youngest and part not in leaving:
            part.overtaken += 1
