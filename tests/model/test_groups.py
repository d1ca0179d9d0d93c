"""Which texts of one request are computed together."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from abproxy_model.groups import in_groups, plan


def test_short_texts_do_not_wait_in_the_padding_of_a_long_one() -> None:
    """Seven short texts and a long one make two groups."""
    assert plan([5, 200, 5, 6, 5, 6, 5, 6]) == [[0, 2, 4, 6, 3, 5, 7], [1]]


def test_many_long_texts_are_cut_into_groups_for_the_cache() -> None:
    """A group is not larger than what is fast to compute."""
    assert [len(group) for group in plan([250] * 5)] == [2, 2, 1]


def test_a_text_longer_than_a_group_is_alone() -> None:
    """Nothing is too long to be computed."""
    assert plan([1000, 1000]) == [[0], [1]]


@given(st.lists(st.integers(min_value=1, max_value=300), max_size=40))
def test_results_come_in_the_order_of_the_texts(lengths: list[int]) -> None:
    """Whatever the groups, every text gets its own result."""
    texts = [[number] * length for number, length in enumerate(lengths)]

    def compute(group: list[Sequence[int]]) -> list[int]:
        return [text[0] for text in group]

    assert in_groups(texts, compute) == list(range(len(lengths)))
