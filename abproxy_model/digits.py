"""
float32 to JSON with the fewest digits that read back as the same float32.

The trick: find the double nearest to that short decimal. A JSON encoder prints
its shortest form, which is the decimal we were looking for, at C speed.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ("shortest",)

_PLAIN = (1e-12, 1e9)
"""Where ten to the power that scales nine digits is an exact double."""

_FEWEST, _MOST = 5, 9
"""Nine digits tell all float32 apart; fewer than five are rare enough to skip."""


def shortest(rows: Sequence[NDArray[np.float32]]) -> list[list[float]]:
    """*rows* as doubles whose shortest decimal is the float32's shortest."""
    if not rows:
        return []
    found: list[list[float]] = _short_doubles(np.stack(rows)).tolist()
    return found


def _short_doubles(values: NDArray[np.float32]) -> NDArray[np.float64]:
    flat = values.reshape(-1)
    exact = flat.astype(np.float64)
    size = np.abs(exact)
    plain = (size >= _PLAIN[0]) & (size < _PLAIN[1])
    found = exact.copy()
    _round_plain(flat, exact, found, np.flatnonzero(plain))
    for index in np.flatnonzero(~plain & (size > 0)):
        found[index] = float(np.format_float_scientific(flat[index]))
    return found.reshape(values.shape)


def _round_plain(
    flat: NDArray[np.float32],
    exact: NDArray[np.float64],
    found: NDArray[np.float64],
    todo: NDArray[np.intp],
) -> None:
    """Round to ever more digits, until the rounded number is the same float32."""
    exponent = np.floor(np.log10(np.abs(exact[todo])))
    for digits in range(_FEWEST, _MOST + 1):
        scale = 10.0 ** (digits - 1 - exponent)
        rounded = np.rint(exact[todo] * scale) / scale
        found[todo] = rounded
        wrong = rounded.astype(np.float32) != flat[todo]
        todo, exponent = todo[wrong], exponent[wrong]
