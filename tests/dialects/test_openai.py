"""Answers of the OpenAI route are put together again for each caller."""

import json
from decimal import Decimal
from typing import Any

import pytest

from abproxy.dialects.call import BadAnswer, Items, Rows, UnsplittableAnswer
from abproxy.dialects.openai import OPENAI
from abproxy.errors import Overloaded

LIST = Items(raw=(), lengths=())


def answer(*rows: str, usage: str | None = None, more: str = "") -> bytes:
    """Write an answer as TEI does."""
    said = f',"usage":{usage}' if usage is not None else ""
    return (
        f'{{"object":"list","data":[{",".join(rows)}],"model":"m"{said}{more}}}'
    ).encode()


def row(embedding: str, index: int) -> str:
    """Write a row as TEI does."""
    return f'{{"object":"embedding","embedding":{embedding},"index":{index}}}'


def written(part: Rows, *more: Rows) -> Any:
    """Write one caller's answer and read it."""
    return json.loads(OPENAI.write([part, *more], LIST))


def test_indexes_count_from_0_for_each_caller() -> None:
    """And all else of a row is as it was, to the digit."""
    body = answer(row("[0.10]", 0), row("[2e-7]", 1), row('"AACAPw=="', 2))

    one, two = OPENAI.split(body, [[1], [1, 1]])

    assert OPENAI.write([one], LIST) == answer(row("[0.10]", 0))
    assert OPENAI.write([two], LIST) == answer(row("[2e-7]", 0), row('"AACAPw=="', 1))


def test_indexes_of_two_digits_are_counted_again() -> None:
    """A row may come from far back in a batch."""
    rows = [row(f"[{at}]", at) for at in range(12)]

    _, two = OPENAI.split(answer(*rows), [[1] * 10, [1, 1]])

    assert [each["index"] for each in written(two)["data"]] == [0, 1]
    assert [each["embedding"] for each in written(two)["data"]] == [[10], [11]]


def test_rows_out_of_order_go_where_their_indexes_say() -> None:
    """The place in the list is not what the API promises."""
    body = answer(row("[2]", 2), row("[0]", 0), row("[1]", 1))

    one, two = OPENAI.split(body, [[1], [1, 1]])

    assert [each["embedding"] for each in written(one)["data"]] == [[0]]
    assert [each["embedding"] for each in written(two)["data"]] == [[1], [2]]


def test_sorted_items_get_their_rows_back() -> None:
    """The index is the place in what was sent, not in what was asked."""
    body = answer(row("[9]", 0), row("[8]", 1))

    one, two = OPENAI.split(body, [[1], [1]], order=[1, 0])

    assert written(one)["data"][0]["embedding"] == [8]
    assert written(two)["data"][0]["embedding"] == [9]


@pytest.mark.parametrize(
    "spelled",
    [
        '{"index":1,"embedding":[1]}',
        '{"embedding":[1],"index": 1}',
        '{"embedding":[1],"index":1 }',
        '{"embedding":[1],"index":1,"meta":{"index":0}}',
        '{"embedding":[1],"meta":{"index":0},"index":1}',
        '{"embedding":[1],"note":"\\"index\\":7}","index":1}',
    ],
)
def test_an_index_is_found_wherever_it_stands(spelled: str) -> None:
    """Other servers write their rows in other ways."""
    body = answer('{"embedding":[0],"index":0}', spelled)

    _, two = OPENAI.split(body, [[1], [1]])

    assert written(two)["data"] == [{**json.loads(spelled), "index": 0}]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b"[[1],[2]]",
        b'{"data":null}',
        b'{"data":{}}',
        b'{"error":{"message":"no"}}',
        answer(),
        answer(row("[0]", 0)),
        answer(row("[0]", 0), row("[1]", 1), row("[2]", 2)),
        answer(row("[0]", 0), row("[1]", 0)),
        answer(row("[0]", 1), row("[1]", 2)),
        answer(row("[0]", 0), '{"embedding":[1]}'),
        answer(row("[0]", 0), '{"embedding":[1],"index":"1"}'),
        answer(row("[0]", 0), '{"embedding":[1],"index":1.5}'),
        answer(row("[0]", 0), '{"embedding":[1],"index":null}'),
        answer(row("[0]", 0), "[1]"),
        answer("[0]", "[1]"),
        answer(row("[0]", 0), '{"embedding":[1],"index":2}'),
        answer(row("[0]", 0), '{"embedding":[1],"index":-1}'),
        answer('{"embedding":[0]}', '{"embedding":[1],"index":0}'),
        answer('{"embedding":[0]}', '{"embedding":[1],"index":2}'),
        answer(row("[0]", 0), row("[1]", 1))[:-1],
        answer(row("[0]", 0), row("[1]", 1)) + b"x",
        answer(row("[0]", 0), row("[1]", 1), usage="[]"),
        b'{"data":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"\xff":1,"data":[]}',
        answer(row("[0]", 0), '{"embedding":[1],"x":1}').replace(b'"x"', b'"\xff"'),
    ],
)
def test_an_answer_without_each_index_once_is_refused(body: bytes) -> None:
    """Nothing is guessed."""
    with pytest.raises(BadAnswer):
        OPENAI.split(body, [[1], [1]])


@pytest.mark.parametrize(
    "rows",
    [
        ['{"embedding":[0]}', '{"embedding":[1]}', '{"embedding":[2]}'],
        ['{"index":null,"embedding":[0]}', '{"embedding":[1]}', '{"embedding":[2]}'],
    ],
)
def test_rows_without_indexes_are_in_order(rows: list[str]) -> None:
    """Each caller gets them as it would alone: without, or with null."""
    one, two = OPENAI.split(answer(*rows), [[1], [1, 1]])

    assert OPENAI.write([one], LIST) == answer(rows[0])
    assert OPENAI.write([two], LIST) == answer(*rows[1:])


def test_where_zeros_are_left_out_a_row_without_index_is_the_first() -> None:
    """As a server writes them that makes JSON of Protocol Buffers."""
    rows = ['{"embedding":[2],"index":2}', '{"embedding":[0]}']
    body = answer(*rows, '{"embedding":[1],"index":1}')

    one, two = OPENAI.split(body, [[1], [1, 1]])

    assert written(one)["data"] == [{"embedding": [0]}]
    assert written(two)["data"] == [
        {"embedding": [1]},
        {"embedding": [2], "index": 1},
    ]


def test_a_call_in_two_parts_is_numbered_as_the_server_does() -> None:
    """A part of one row does not show it; another part may."""
    [one] = OPENAI.split(answer('{"embedding":[0]}'), [[1]])
    [two] = OPENAI.split(
        answer('{"embedding":[1]}', '{"embedding":[2],"index":1}'), [[1, 1]]
    )

    assert written(one, two)["data"] == [
        {"embedding": [0]},
        {"embedding": [1], "index": 1},
        {"embedding": [2], "index": 2},
    ]


NO_NUMBERS = ["NaN", "nan", "Infinity", "-Infinity", "inf", "null"]


@pytest.mark.parametrize("word", NO_NUMBERS)
@pytest.mark.parametrize("blank", ["", " "])
@pytest.mark.parametrize("before", ['"id":"a NaN"', '"embedding":[9]', '"index":0'])
def test_a_row_of_no_numbers_is_the_fault_of_no_other(
    word: str, blank: str, before: str
) -> None:
    """Its sender gets what it would get alone, to the letter."""
    values = f"[0.10,{blank}{word},{blank}{word}]"
    bad = f'{{"note":"NaN \\" Infinity",{before},"embedding":{values},"index":1}}'
    body = answer(row("[0]", 0), bad, row("[2]", 2), usage='{"cost":NaN,"n":3}')

    one, two, three = OPENAI.split(body, [[1], [1], [1]])

    assert written(one)["data"] == [{**json.loads(row("[0]", 0)), "index": 0}]
    assert written(three)["data"] == [{**json.loads(row("[2]", 2)), "index": 0}]
    got = OPENAI.write([two], LIST).decode()
    assert f'"embedding":{values}' in got
    assert '"note":"NaN \\" Infinity"' in got
    assert '"usage":{"cost":NaN,"n":1}' in got


def test_two_words_in_one_text_are_no_numbers() -> None:
    """What cannot be told apart is not guessed."""
    body = answer(row("[0]", 0), row("[NaN]", 1), more=',"x":"\x7fNaN\x7f"')

    with pytest.raises(BadAnswer):
        OPENAI.split(body.replace(b"list", b"lists"), [[1], [1]])


@pytest.mark.parametrize(
    "body",
    [
        b'[{"index":0,"embedding":[[1]]},{"index":1,"embedding":[[2]]}]',
        b"[[1],[2]]",
        b'{"embeddings":[[1],[2]]}',
        b'{"data":{"embeddings":[[NaN],[2]]}}',
        b'{"data":[[1],[2]]}',
        b'{"data":["AACAPw==","AACAPw=="],"model":"m"}',
    ],
)
def test_rows_in_another_form_cannot_be_split_whatever_is_asked(body: bytes) -> None:
    """The server will always answer so."""
    with pytest.raises(UnsplittableAnswer):
        OPENAI.split(body, [[1], [1]])


@pytest.mark.parametrize(
    "body",
    [
        b'{"error":{"message":"no"}}',
        b'{"error":["a","b"]}',
        b'{"errors":[{},{}],"data":null}',
        b'{"data":[[1]]}',
        b"[[1]]",
        answer(row("[0]", 0), row("[1]", 0)),
        answer(row("[0]", 0), row("[1]", 1))[:-1],
    ],
)
def test_an_answer_that_is_bad_by_chance_says_nothing_of_the_next(body: bytes) -> None:
    """An error with status 200 may be about one item."""
    with pytest.raises(BadAnswer) as caught:
        OPENAI.split(body, [[1], [1]])

    assert not isinstance(caught.value, UnsplittableAnswer)


def test_unknown_members_stay() -> None:
    """They are about the model or the server, which are the same for all."""
    body = answer(row("[0]", 0), row("[1]", 1), more=',"id":"x","cost":[1.50]')

    one, _ = OPENAI.split(body, [[1], [1]])

    assert b'"id":"x","cost":[1.50]' in OPENAI.write([one], LIST)


@pytest.mark.parametrize("usage", [None, "null", "{}"])
def test_a_missing_usage_stays_missing(usage: str | None) -> None:
    """Not every server counts."""
    body = answer(row("[0]", 0), row("[1]", 1), usage=usage)

    one, _ = OPENAI.split(body, [[1], [1]])

    assert OPENAI.write([one], LIST) == answer(row("[0]", 0), usage=usage)


def test_usage_is_shared_out_by_length() -> None:
    """Each caller pays for its own items."""
    usage = '{"prompt_tokens":10,"total_tokens":10,"cached":true,"unit":"token"}'
    body = answer(row("[0]", 0), row("[1]", 1), usage=usage)

    one, two = OPENAI.split(body, [[30], [70]])

    same = {"cached": True, "unit": "token"}
    assert written(one)["usage"] == {"prompt_tokens": 3, "total_tokens": 3, **same}
    assert written(two)["usage"] == {"prompt_tokens": 7, "total_tokens": 7, **same}


USAGE = (
    '{"prompt_tokens":10,"cost":0.00001,"flat":3.0,"none":null,'
    '"prompt_tokens_details":{"cached_tokens":5,"steps":[1,2.5]},"rate":-0.5}'
)


def usage_of(part: Rows, *more: Rows) -> Any:
    """Read one caller's usage with its decimals."""
    body = OPENAI.write([part, *more], LIST)
    return json.loads(body, parse_float=Decimal)["usage"]


def test_every_number_in_the_usage_is_shared_out() -> None:
    """The callers' sums are what the server billed, to the last digit."""
    rows = [row(f"[{at}]", at) for at in range(3)]

    parts = OPENAI.split(answer(*rows, usage=USAGE), [[1], [1], [1]])
    usages = [usage_of(part) for part in parts]

    def total(*path: Any) -> Any:
        found = []
        for usage in usages:
            for step in path:
                usage = usage[step]  # noqa: PLW2901
            found.append(usage)
        return sum(found)

    assert total("prompt_tokens") == 10
    assert total("cost") == Decimal("0.00001")
    assert total("flat") == Decimal("3.0")
    assert total("rate") == Decimal("-0.5")
    assert total("prompt_tokens_details", "cached_tokens") == 5
    assert total("prompt_tokens_details", "steps", 0) == 1
    assert total("prompt_tokens_details", "steps", 1) == Decimal("2.5")
    assert {usage["none"] for usage in usages} == {None}
    assert sorted(usage["cost"] for usage in usages) == [
        Decimal("0.00000333333"),
        Decimal("0.00000333333"),
        Decimal("0.00000333334"),
    ]


def test_a_fraction_that_divides_has_no_more_digits_than_it_needs() -> None:
    """And as many as it had: a float stays one."""
    body = answer(row("[0]", 0), row("[1]", 1), usage='{"cost":1.50,"n":4.0}')

    one, _ = OPENAI.split(body, [[1], [1]])

    assert b'"usage":{"cost":0.75,"n":2.0}' in OPENAI.write([one], LIST)


def test_a_call_that_was_cut_pays_the_fractions_of_all_its_parts() -> None:
    """At each depth, and what only one of them names as well."""
    usages = ['{"cost":0.1,"d":{"a":1,"s":"x"}}', '{"cost":0.2,"d":{"a":2,"b":1e-7}}']
    [[one], [two]] = [
        OPENAI.split(answer(row("[0]", 0), usage=usage), [[1]]) for usage in usages
    ]

    assert usage_of(one, two) == {
        "cost": Decimal("0.3"),
        "d": {"a": 3, "s": "x", "b": Decimal("1e-7")},
    }


@pytest.mark.parametrize("huge", ["1e999999999", "1e-999999999", "-5E+401"])
def test_a_number_that_nobody_could_write_out_is_copied(huge: str) -> None:
    """Its digits would fill the memory."""
    body = answer(row("[0]", 0), row("[1]", 1), usage=f'{{"x":{huge}}}')

    one, _ = OPENAI.split(body, [[1], [1]])

    assert usage_of(one)["x"] == Decimal(huge)


def test_a_call_that_was_cut_pays_for_all_its_parts() -> None:
    """Its answer is one, whatever it travelled in."""
    [one] = OPENAI.split(answer(row("[0]", 0), usage='{"total_tokens":3}'), [[1]])
    [two] = OPENAI.split(answer(row("[1]", 0), usage='{"total_tokens":4}'), [[1]])

    whole = written(one, two)

    assert whole["usage"] == {"total_tokens": 7}
    assert [each["index"] for each in whole["data"]] == [0, 1]
    assert [each["embedding"] for each in whole["data"]] == [[0], [1]]


def test_parts_may_differ_in_what_they_count() -> None:
    """A server may begin to count between two parts of one call."""
    [one] = OPENAI.split(answer(row("[0]", 0), usage='{"total_tokens":3}'), [[1]])
    [two] = OPENAI.split(answer(row("[1]", 0), usage="null"), [[1]])

    assert written(one, two)["usage"] == {"total_tokens": 3}
    assert written(two, one)["usage"] == {"total_tokens": 3}


def test_an_error_is_written_flat() -> None:
    """As TEI does on these routes."""
    assert json.loads(OPENAI.error_body(Overloaded("full"))) == {
        "message": "full",
        "code": 429,
        "type": "Overloaded",
    }
