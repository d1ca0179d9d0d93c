"""The activation of the feed-forward layers."""

import math

import numpy as np

from abproxy_model.gelu import gelu


def test_gelu_is_the_tanh_approximation() -> None:
    """Every value is what the formula gives in double precision, to 1e-6."""
    values = np.linspace(-6, 6, 100_001, dtype=np.float32)
    exact = [
        x / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
        for x in values.tolist()
    ]

    gelu(values)

    assert np.abs(values - np.array(exact)).max() < 1e-6


def test_gelu_covers_arrays_larger_than_a_piece() -> None:
    """Every number of a large matrix is activated, once."""
    values = np.full((300, 301), 1.0, dtype=np.float32)

    gelu(values)

    assert np.allclose(values, 0.841192, atol=1e-6)
