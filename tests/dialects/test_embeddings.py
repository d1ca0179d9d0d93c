"""The quick knife cuts what a parser would, or leaves it to one."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from abproxy.dialects.call import BadAnswer
from abproxy.dialects.embeddings import cut_plain
from abproxy.dialects.openai import OPENAI

values = st.one_of(
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


def cut(body: bytes, count: int) -> tuple[list[object], dict[str, object]]:
    """What each of *count* callers gets of *body*, put together."""
    slices = OPENAI.cut(body, [[1]] * count)
    return parsed(OPENAI.write(slices, is_list=True))


def test_what_tei_writes_is_cut_quickly() -> None:
    """The rows without their indexes, and what is around them."""
    rows = [row('"AACAPw=="', 0), row("[0.10]", 1)]

    found = cut_plain(written(rows), 2)

    assert found is not None
    stems, members = found
    assert [f'{stem.decode()}"index":{at}}}' for at, stem in enumerate(stems)] == rows
    assert list(members) == ["object", "data", "model", "usage"]


@given(drawn=st.lists(values, min_size=1, max_size=5))
def test_whoever_cuts_each_gets_its_own(drawn: list[str]) -> None:
    """Brackets and quotes within a value are no borders."""
    body = written([row(value, at) for at, value in enumerate(drawn)])

    assert cut(body, len(drawn)) == parsed(body)


@given(
    drawn=st.lists(values, min_size=1, max_size=3),
    at=st.integers(0, 200),
    change=st.sampled_from(["", " ", ",", "]", "}", '"', "\\", "0", '"data":[],']),
    length=st.integers(0, 2),
)
def test_what_was_changed_somewhere_is_cut_as_a_parser_would(
    drawn: list[str], at: int, change: str, length: int
) -> None:
    """Or it is refused: nobody gets what is another's."""
    text = written([row(value, at) for at, value in enumerate(drawn)]).decode()
    changed = (text[:at] + change + text[at + length :]).encode()
    try:
        expected = parsed(changed)
        found = cut(changed, len(drawn))
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
    assert cut_plain(body, 2) is None
