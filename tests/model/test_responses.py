"""How numbers are printed."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from abproxy_model.responses import shortest_doubles


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_numbers_have_the_fewest_digits(values: list[float]) -> None:
    """Any float32 is printed with the digits that numpy prints for it."""
    row = np.array(values, dtype=np.float32)

    found = shortest_doubles([row])

    assert found == [[float(str(value)) for value in row]]


def test_a_million_random_numbers_read_back_as_they_were() -> None:
    """Printing loses nothing."""
    rows = np.random.default_rng(1).normal(0, 0.05, (1000, 1000)).astype(np.float32)

    found = np.array(shortest_doubles(list(rows)))

    assert (found.astype(np.float32) == rows).all()
    assert np.char.str_len(found[:10].astype(str)).max() <= len("-0.000123456789")


@pytest.mark.parametrize(
    "text", [b"-0.0038684683", b"0.013743615", b"0.1", b"1.5e-33", b"0.0"]
)
def test_numbers_are_printed_as_tei_prints_them(text: bytes) -> None:
    """The digits are those of a recorded answer."""
    row = np.array([float(text)], dtype=np.float32)

    assert msgspec.json.encode(shortest_doubles([row])) == b"[[" + text + b"]]"
