"""An answer is split into the rows of each part, or refused."""

import json
import tracemalloc
from collections.abc import Callable
from itertools import accumulate, pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from abproxy.dialects.call import BadAnswer, Dialect, Items, UnsplittableAnswer
from abproxy.dialects.openai import OPENAI
from abproxy.dialects.split import (
    find_arrays,
    find_embeddings,
    find_values,
    make_template,
)
from abproxy.dialects.tei import DECODE, EMBED, EMBED_ALL, PREDICT, TOKENIZE
from abproxy.dialects.usage import share_out

LIST = Items(raw=(), lengths=())
BARE = Items(raw=(), lengths=(), is_list=False)
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
    """Split an answer made of *rows* for calls of these *sizes*, and join again."""
    body = f"[{','.join(rows)}]".encode()
    slices = dialect.split(body, [[1] * size for size in sizes])
    ends = accumulate(sizes, initial=0)
    alone = [f"[{','.join(rows[start:end])}]" for start, end in pairwise(ends)]
    written = [dialect.write([part], LIST).decode() for part in slices]
    assert written == alone
    assert dialect.write(slices, LIST) == body


@given(calls=st.lists(st.lists(flat_row, min_size=1, max_size=3), min_size=1))
def test_each_call_gets_the_bytes_it_would_get_alone(calls: list[list[str]]) -> None:
    """Split and joined, not a digit is changed, wherever it is split."""
    check_rows(EMBED, [row for call in calls for row in call], list(map(len, calls)))


@given(
    calls=st.lists(st.lists(any_row, min_size=1, max_size=3), min_size=1),
    dialect=st.sampled_from([EMBED_ALL, PREDICT, TOKENIZE, DECODE]),
)
def test_rows_of_any_shape_are_split_where_they_end(
    calls: list[list[str]], dialect: Dialect
) -> None:
    """Brackets in a string or below the surface are no borders."""
    check_rows(dialect, [row for call in calls for row in call], list(map(len, calls)))


def test_sorted_items_get_their_rows_back_in_order() -> None:
    """A batch may be sent in another order than its calls came in."""
    slices = EMBED.split(b"[[3],[1],[2]]", [[1], [1, 1]], order=[2, 0, 1])

    assert [part.raw for part in slices] == [[b"[1]"], [b"[2]", b"[3]"]]


def test_one_bare_row_is_written_by_itself() -> None:
    """As /predict answers a single sequence."""
    [part] = PREDICT.split(b'[[{"score":1.0,"label":"a"}]]', [[1]])

    assert PREDICT.write([part], BARE) == b'[{"score":1.0,"label":"a"}]'


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
    assert find_arrays(body, 2) == [b"[1]", b"[2]"]


def test_nested_rows_are_found_at_their_own_level() -> None:
    """As many brackets as rows do not make them rows."""
    assert find_arrays(b"[[[1],[2]],[]]", 2) == [b"[[1],[2]]", b"[]"]


def test_empty_rows_are_rows() -> None:
    """What is in them does not matter."""
    assert find_arrays(b"[[],[]]", 2) == [b"[]", b"[]"]


@pytest.mark.parametrize("cut", [find_arrays, find_values])
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


@pytest.mark.parametrize("cut", [find_arrays, find_values])
@pytest.mark.parametrize(
    "rows",
    [
        ["[0.10]", "[NaN,-Infinity]"],
        ["[0.10]", "[nan, 1e-7, inf]"],
        ["[0.10]", "[null]"],
        ['{"label":"NaN \\" NaN","score":NaN}', '{"label":"Infinity","score":1.0}'],
        ['[["NaN",1E+5]]', "NaN"],
    ],
)
@pytest.mark.parametrize("comma", [",", ", "])
def test_a_row_of_no_numbers_is_cut_as_it_is(
    cut: Callable[[bytes, int], list[bytes]], rows: list[str], comma: str
) -> None:
    """It is a row all the same; what it is worth is for its sender to say."""
    body = f"[{comma.join(rows)}]".encode()

    assert [row.decode() for row in cut(body, 2)] == rows


@pytest.mark.parametrize(
    "body",
    [
        b"[[1],[NaN]",
        b"[[1],[NaNa]]",
        b"[[1],[1eNaN]]",
        b'[[1],["NaN]]',
        b'[[NaN],["\x7fNaN\x7f"]]',
        b'[[1],["' + b'\\"' * 1_000_000 + b"NaN",
    ],
)
def test_bad_words_do_not_make_json_of_what_is_none(body: bytes) -> None:
    """Nothing is guessed."""
    with pytest.raises(BadAnswer):
        find_values(body, 2)


@pytest.mark.parametrize(
    "body",
    [
        b'{"embeddings":[[1],[2]]}',
        b'{"object":"list","data":[{},{}]}',
        b'{"embeddings":{"float":[[1],[NaN]]}}',
    ],
)
def test_rows_in_another_form_cannot_be_split_whatever_is_asked(body: bytes) -> None:
    """The server will always answer so."""
    with pytest.raises(UnsplittableAnswer):
        find_arrays(body, 2)


@pytest.mark.parametrize(
    "body",
    [
        b'{"error":["a","b"]}',
        b'{"error":"no","error_type":"Backend"}',
        b'{"embeddings":[[1]]}',
        b"[[1]]",
        b"<html>",
    ],
)
def test_an_answer_that_is_bad_by_chance_says_nothing_of_the_next(body: bytes) -> None:
    """An error with status 200 may be about one item."""
    with pytest.raises(BadAnswer) as caught:
        find_arrays(body, 2)

    assert not isinstance(caught.value, UnsplittableAnswer)


# OpenAI's objects

embeddings = st.one_of(
    st.sampled_from(['"AACAPw=="', '""', "[]", "[0.10,-2e-7]"]),
    st.sampled_from(["[[1]]", '"a\\"b"', "null", "[ 1 ]", '"},{"', '["]"]']),
)
EXACT = '{"object":"list","data":[%s],"model":"m","usage":{"total_tokens":9}}'


def written(rows: list[str], whole: str = EXACT) -> bytes:
    """Write an answer as TEI does."""
    return (whole % ",".join(rows)).encode()


def row(value: str, index: int) -> str:
    """Write a row as TEI does."""
    return f'{{"object":"embedding","embedding":{value},"index":{index}}}'


def parsed(body: bytes) -> tuple[list[object], dict[str, object]]:
    """What a parser finds: embeddings in their places, and all else."""
    members = json.loads(body)
    rows = sorted(members.pop("data"), key=lambda each: each["index"])
    return [each["embedding"] for each in rows], members


def split_and_write(body: bytes, count: int) -> tuple[list[object], dict[str, object]]:
    """What each of *count* callers gets of *body*, put together."""
    slices = OPENAI.split(body, [[1]] * count)
    return parsed(OPENAI.write(slices, LIST))


def test_what_tei_writes_is_found_by_the_quick_scan() -> None:
    """The rows without their indexes, and what is around them."""
    rows = [row('"AACAPw=="', 0), row("[0.10]", 1)]

    found = find_embeddings(written(rows), 2)

    assert found is not None
    stripped, members = found
    assert [
        f'{each.decode()}"index":{at}}}' for at, each in enumerate(stripped)
    ] == rows
    assert list(members) == ["object", "data", "model", "usage"]


@given(drawn=st.lists(embeddings, min_size=1, max_size=5))
def test_each_caller_gets_its_own_however_rows_are_found(drawn: list[str]) -> None:
    """Brackets and quotes within a value are no borders."""
    body = written([row(value, at) for at, value in enumerate(drawn)])

    assert split_and_write(body, len(drawn)) == parsed(body)


@given(
    drawn=st.lists(embeddings, min_size=1, max_size=3),
    at=st.integers(0, 200),
    change=st.sampled_from(["", " ", ",", "]", "}", '"', "\\", "0", '"data":[],']),
    length=st.integers(0, 2),
)
def test_what_was_changed_somewhere_is_split_as_a_parser_would(
    drawn: list[str], at: int, change: str, length: int
) -> None:
    """Or it is refused: no caller gets another's rows."""
    text = written([row(value, at) for at, value in enumerate(drawn)]).decode()
    changed = (text[:at] + change + text[at + length :]).encode()
    try:
        expected = parsed(changed)
        found = split_and_write(changed, len(drawn))
    except (ValueError, KeyError, TypeError, AttributeError, BadAnswer):
        return

    assert found[0] == expected[0]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b'{"object":"list","data":[',
        written([row("[1]", 0)]),
        written([row("[1]", 0), row("[2]", 1), row("[3]", 2)]),
        written([row("[1]", 1), row("[2]", 0)]),
        written([row("[1]", 0), row("[2]", 1)]).replace(b"},{", b"}{"),
        written([row("[1]", 0), row("[2]", 1)]).replace(b"},{", b"}, {"),
        written([row("[1]", 0), row("[[2]]", 1)]),
        written([row("[1]", 0), row('"\\"', 1)]),
        written([row("[1]", 0), row("null", 1)]),
        written([row("[1]", 0), row("[2]", 1)], EXACT.replace("list", "lists")),
        written([row("[1]", 0), row("[2]", 1)], EXACT[:-1] + ',"data":[1]}'),
    ],
)
def test_whatever_is_not_plain_is_left_to_the_parser(body: bytes) -> None:
    """Nothing is guessed."""
    assert find_embeddings(body, 2) is None


member_names = st.sampled_from(["data", "usage", "model", 'q"\\', "é"])
member_values = st.sampled_from(["1.50", '"x"', "[1, 2]", "null", '{"a":{}}'])


@given(members=st.dictionaries(member_names, member_values))
def test_an_object_is_filled_with_what_was_taken_out(members: dict[str, str]) -> None:
    """Every member is where it was, each value to the letter."""
    pairs = [
        f"{msgspec.json.encode(name).decode()}:{value}"
        for name, value in members.items()
    ]
    written = "{" + ",".join(pairs) + "}"
    found = msgspec.json.decode(written, type=dict[str, msgspec.Raw])
    template = make_template(found, ("data", "usage"))

    filled = template.fill({name: value.encode() for name, value in members.items()})

    assert filled.decode() == written
    assert set(template.holes) == {"data", "usage"} & members.keys()


# What a batch cost


@given(
    total=st.integers(0, 10**12),
    weights=st.lists(st.integers(0, 10**6), min_size=1, max_size=40),
)
def test_shares_add_up_to_the_whole(total: int, weights: list[int]) -> None:
    """No token is lost or counted twice, and no share is off by a whole token."""
    shares = share_out(total, weights)

    whole = sum(weights)
    assert sum(shares) == total
    if whole:
        exact = [total * weight / whole for weight in weights]
        assert all(
            abs(a - b) < 1 + b * 1e-9 for a, b in zip(shares, exact, strict=True)
        )


@given(weights=st.lists(st.integers(0, 10**6), min_size=1))
def test_weights_that_add_up_to_the_total_are_the_shares(weights: list[int]) -> None:
    """Where the tokens are known, nothing is estimated."""
    assert share_out(sum(weights), weights) == weights or not sum(weights)


def test_nothing_is_kept_for_each_number_of_rows_of_large_calls() -> None:
    """A client may ask with 100,000 inputs, and then with one less, and so on."""
    tracemalloc.start()
    try:
        for fewer in range(5):
            find_embeddings(b'{"object":"list","data":[]}', 20_000 - fewer)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert held < 1_000_000
