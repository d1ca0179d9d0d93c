"""BERT's activation, and which texts it computes together."""

import math
from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from abproxy_model.bert import gelu, in_groups, plan_groups


def test_gelu_is_the_tanh_approximation() -> None:
    """Every value is what the formula gives in double precision, to 1e-6."""
    values = np.linspace(-6, 6, 100_001, dtype=np.float32)
    exact = [
        x / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
        for x in values.tolist()
    ]

    gelu(values)

    assert np.abs(values - np.array(exact)).max() < 1e-6


def test_gelu_covers_arrays_larger_than_a_chunk() -> None:
    """Every number of a large matrix is activated, once."""
    values = np.full((300, 301), 1.0, dtype=np.float32)

    gelu(values)

    assert np.allclose(values, 0.841192, atol=1e-6)


def test_short_texts_do_not_wait_in_the_padding_of_a_long_one() -> None:
    """Seven short texts and a long one make two groups."""
    assert plan_groups([5, 200, 5, 6, 5, 6, 5, 6]) == [[0, 2, 4, 6, 3, 5, 7], [1]]


def test_many_long_texts_are_cut_into_groups_for_the_cache() -> None:
    """A group is not larger than what is fast to compute."""
    assert [len(group) for group in plan_groups([250] * 5)] == [2, 2, 1]


def test_a_text_longer_than_a_group_is_alone() -> None:
    """Nothing is too long to be computed."""
    assert plan_groups([1000, 1000]) == [[0], [1]]


@given(st.lists(st.integers(min_value=1, max_value=300), max_size=40))
def test_results_come_in_the_order_of_the_texts(lengths: list[int]) -> None:
    """Whatever the groups, every text gets its own result."""
    texts = [[number] * length for number, length in enumerate(lengths)]

    def compute(group: list[Sequence[int]]) -> list[int]:
        return [text[0] for text in group]

    assert in_groups(texts, compute) == list(range(len(lengths)))
