"""What `make test/real` takes for another answer, and what for the same."""

import base64
import json
import struct
from typing import Any

import pytest

from real.asking import Answer
from real.comparing import Closeness, Expected, shortened, usage_of

ROW = [0.5, -0.25, 0.125, 1.0]
NEAR = [0.5, -0.25, 0.1251, 1.0]
FAR = [0.5, -0.25, 0.135, 1.0]


def answer(value: Any, status: int = 200, **header: str) -> Answer:
    """Make an answer with *value* as JSON."""
    lines = sorted((name.replace("_", "-"), text) for name, text in header.items())
    return Answer(status=status, header=tuple(lines), body=json.dumps(value).encode())


def openai(row: Any, tokens: int = 3, **more: Any) -> Answer:
    """Make an answer of the OpenAI route."""
    data = [{"object": "embedding", "index": 0, "embedding": row}]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return answer({"data": data, "usage": usage, **more})


def packed(row: list[float]) -> str:
    """Write *row* as OpenAI's clients ask for it."""
    return base64.b64encode(struct.pack(f"<{len(row)}f", *row)).decode()


def differences(
    direct: Answer, through: Answer, *, is_shared: bool = True
) -> list[str]:
    """Compare two answers."""
    expected = Expected.of(direct, direct)
    return expected.differences(through, Closeness(), is_shared=is_shared)


@pytest.mark.parametrize("form", [list, packed], ids=["floats", "base64"])
def test_a_row_with_other_last_digits_is_the_same(form: Any) -> None:
    """A real model computes a text in other company a little otherwise."""
    assert differences(openai(form(ROW)), openai(form(NEAR))) == []


@pytest.mark.parametrize("form", [list, packed], ids=["floats", "base64"])
def test_the_row_of_another_text_differs(form: Any) -> None:
    """It would be a caller's answer given to another one."""
    assert len(differences(openai(form(ROW)), openai(form(FAR)))) == 1


def test_a_row_with_nan_differs() -> None:
    """NaN is near no number, wherever it stands."""
    row = [*ROW[:2], float("nan"), ROW[3]]

    assert differences(openai(ROW), openai(row)) == [
        "body.data[0].embedding: another row"
    ]


def test_how_far_equal_numbers_are_apart_is_told() -> None:
    """The page shows what the tolerance was needed for."""
    closeness = Closeness()

    Expected.of(openai(ROW), openai(ROW)).differences(
        openai(NEAR), closeness, is_shared=True
    )

    assert closeness.greatest == pytest.approx(0.0001)


@pytest.mark.parametrize(
    "through",
    [
        answer({"error": "no"}, status=500),
        answer({"error": "No"}, status=422),
        answer({"error": "no", "more": 1}, status=422),
        answer({}, status=422),
        answer(["no"], status=422),
        answer({"error": "no"}, status=422, retry_after="1"),
        Answer(status=422, body=b"no"),
    ],
    ids=["status", "words", "new", "missing", "type", "header", "no JSON"],
)
def test_another_refusal_differs(through: Answer) -> None:
    """Status, words, members and header lines are the server's own."""
    assert differences(answer({"error": "no"}, status=422), through) != []


def test_a_row_too_many_differs() -> None:
    """It belongs to another call."""
    assert differences(answer([ROW]), answer([ROW, ROW])) == [
        "body: 1 elements, not 2",
    ]


def test_an_integer_is_no_float_but_in_a_row() -> None:
    """A count that becomes 1.0 is another answer."""
    assert differences(answer({"index": 1}), answer({"index": 1.0})) != []


def test_what_differs_between_two_direct_answers_is_not_compared() -> None:
    """An id or a time is new in every answer."""
    expected = Expected.of(openai(ROW, id="a"), openai(ROW, id="b"))

    assert expected.differences(openai(ROW, id="c"), Closeness(), is_shared=True) == []


def test_a_member_that_comes_and_goes_directly_is_not_compared() -> None:
    """What a server leaves out at times may be missing."""
    expected = Expected.of(openai(ROW, id="a"), openai(ROW))

    assert expected.differences(openai(ROW), Closeness(), is_shared=True) == []


def test_token_counts_are_compared_only_of_calls_that_were_alone() -> None:
    """In a batch they are shared out by length, as the page says."""
    direct, through = openai(ROW, tokens=3), openai(ROW, tokens=4)

    assert differences(direct, through, is_shared=True) == []
    assert len(differences(direct, through, is_shared=False)) == 2


def test_usage_is_read_where_there_is_one() -> None:
    """What is no answer of the OpenAI route costs no tokens."""
    answers = [openai(ROW, tokens=7), answer([ROW]), Answer(status=0, body=b"broken")]

    assert [usage_of(each) for each in answers] == [7, 0, 0]


def test_long_rows_are_cut_where_an_answer_is_shown() -> None:
    """A failure is read by people."""
    shown = shortened(openai([0.5] * 384))

    assert "0.5, 0.5, …, 0.5" in shown.replace("…,0.5", "…, 0.5")
    assert len(shown) < 300
