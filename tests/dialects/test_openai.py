"""Answers of the OpenAI route are put together again for each caller."""

import json
from typing import Any

import pytest

from abproxy.dialects.call import BadAnswer, Rows
from abproxy.dialects.openai import OPENAI
from abproxy.errors import Overloaded


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
    return json.loads(OPENAI.write([part, *more], is_list=True))


def test_indexes_count_from_0_for_each_caller() -> None:
    """And all else of a row is as it was, to the digit."""
    body = answer(row("[0.10]", 0), row("[2e-7]", 1), row('"AACAPw=="', 2))

    one, two = OPENAI.split(body, [[1], [1, 1]])

    assert OPENAI.write([one], is_list=True) == answer(row("[0.10]", 0))
    assert OPENAI.write([two], is_list=True) == answer(
        row("[2e-7]", 0), row('"AACAPw=="', 1)
    )


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


def test_unknown_members_stay() -> None:
    """They are about the model or the server, which are the same for all."""
    body = answer(row("[0]", 0), row("[1]", 1), more=',"id":"x","cost":[1.50]')

    one, _ = OPENAI.split(body, [[1], [1]])

    assert b'"id":"x","cost":[1.50]' in OPENAI.write([one], is_list=True)


@pytest.mark.parametrize("usage", [None, "null", "{}"])
def test_a_missing_usage_stays_missing(usage: str | None) -> None:
    """Not every server counts."""
    body = answer(row("[0]", 0), row("[1]", 1), usage=usage)

    one, _ = OPENAI.split(body, [[1], [1]])

    assert OPENAI.write([one], is_list=True) == answer(row("[0]", 0), usage=usage)


def test_usage_is_shared_out_by_length() -> None:
    """Each caller pays for its own items."""
    usage = '{"prompt_tokens":10,"total_tokens":10,"cached":true,"details":{"x":1}}'
    body = answer(row("[0]", 0), row("[1]", 1), usage=usage)

    one, two = OPENAI.split(body, [[30], [70]])

    same = {"cached": True, "details": {"x": 1}}
    assert written(one)["usage"] == {"prompt_tokens": 3, "total_tokens": 3, **same}
    assert written(two)["usage"] == {"prompt_tokens": 7, "total_tokens": 7, **same}


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
