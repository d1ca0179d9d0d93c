"""An answer is cut into rows, or it is nobody's."""

import json
from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from abproxy.dialects.call import BadAnswer, Dialect
from abproxy.dialects.rows import cut_arrays, cut_values
from abproxy.dialects.tei import DECODE, EMBED, EMBED_ALL, PREDICT, TOKENIZE

NUMBERS = ["0", "-0.0", "1e-7", "0.10000000149011612", "3", "-1.5E+3"]
number = st.sampled_from(NUMBERS)
flat_row = st.lists(number, max_size=4).map(lambda row: f"[{','.join(row)}]")
any_row = st.recursive(
    st.one_of(
        st.text().map(lambda text: json.dumps(text, ensure_ascii=False)),
        st.sampled_from(["{}", '{"score":0.5,"label":"],["}', "[]", "null"]),
        number,
    ),
    lambda rows: st.lists(rows, max_size=3).map(lambda row: f"[{','.join(row)}]"),
)


def check_rows(dialect: Dialect, rows: list[str], sizes: list[int]) -> None:
    """Cut an answer made of *rows* for calls of these *sizes*, and join again."""
    body = f"[{','.join(rows)}]".encode()
    slices = dialect.cut(body, [[1] * size for size in sizes])
    ends = accumulate(sizes, initial=0)
    alone = [f"[{','.join(rows[start:end])}]" for start, end in pairwise(ends)]
    written = [dialect.write([part], is_list=True).decode() for part in slices]
    assert written == alone
    assert dialect.write(slices, is_list=True) == body


@given(calls=st.lists(st.lists(flat_row, min_size=1, max_size=3), min_size=1))
def test_each_call_gets_the_bytes_it_would_get_alone(calls: list[list[str]]) -> None:
    """Cut and joined, not a digit is changed, wherever the cut is made."""
    check_rows(EMBED, [row for call in calls for row in call], list(map(len, calls)))


@given(
    calls=st.lists(st.lists(any_row, min_size=1, max_size=3), min_size=1),
    dialect=st.sampled_from([EMBED_ALL, PREDICT, TOKENIZE, DECODE]),
)
def test_rows_of_any_shape_are_cut_where_they_end(
    calls: list[list[str]], dialect: Dialect
) -> None:
    """Brackets in a string or below the surface are no borders."""
    check_rows(dialect, [row for call in calls for row in call], list(map(len, calls)))


def test_sorted_items_get_their_rows_back_in_order() -> None:
    """A batch may be sent in another order than its calls came in."""
    slices = EMBED.cut(b"[[3],[1],[2]]", [[1], [1, 1]], order=[2, 0, 1])

    assert [part.raw for part in slices] == [[b"[1]"], [b"[2]", b"[3]"]]


def test_one_bare_row_is_written_by_itself() -> None:
    """As /predict answers a single sequence."""
    [part] = PREDICT.cut(b'[[{"score":1.0,"label":"a"}]]', [[1]])

    assert PREDICT.write([part], is_list=False) == b'[{"score":1.0,"label":"a"}]'


@pytest.mark.parametrize(
    "body",
    [
        b" [[1],[2]]",
        b"[[1],[2]]\n",
        b"[[1], [2]]",
        b"[ [1],[2] ]",
        b"[\n[1]\n,\n[2]\n]",
    ],
)
def test_white_space_between_rows_is_no_hindrance(body: bytes) -> None:
    """A server may print its answers prettily."""
    assert cut_arrays(body, 2) == [b"[1]", b"[2]"]


def test_nested_rows_are_cut_at_their_own_level() -> None:
    """As many brackets as rows do not make them rows."""
    assert cut_arrays(b"[[[1],[2]],[]]", 2) == [b"[[1],[2]]", b"[]"]


def test_empty_rows_are_rows() -> None:
    """Nobody asked what is in them."""
    assert cut_arrays(b"[[],[]]", 2) == [b"[]", b"[]"]


@pytest.mark.parametrize("cut", [cut_arrays, cut_values])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"[[1]]",
        b"[[1],[2],[3]]",
        b"[[1],[2]",
        b"[[1],[2",
        b"[[1],",
        b"[[1],[2]]]",
        b"[[1],[2]] x",
        b"[[1],[2]][",
        b"[[1][2]]",
        b'{"error":"no"}',
        b"<html>",
        b"null",
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
    ],
)
def test_a_body_without_one_row_for_each_item_is_refused(
    cut: object, body: bytes
) -> None:
    """Nothing is guessed."""
    with pytest.raises(BadAnswer):
        cut(body, 2)  # type: ignore[operator]
