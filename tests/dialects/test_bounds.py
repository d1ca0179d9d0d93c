"""What a body may hold, and that more is noticed before anything is made of it."""

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abproxy.dialects import bounds, tei
from abproxy.dialects.bounds import FEW, MAX_INPUTS, MAX_MEMBERS, MAX_OPTIONS
from abproxy.dialects.call import Dialect, ParsedBody
from abproxy.dialects.members import MemberRules
from abproxy.dialects.openai import OPENAI
from abproxy.dialects.tei import DECODE, EMBED, PREDICT, TOKENIZE
from abproxy.errors import CallTooLarge, ProxyError
from support.client import Answer
from support.proxy import in_memory_proxy
from support.upstream import Saying

MANY = 3 * FEW
PAIR = b'["a","b"]'


def inputs(*texts: bytes, name: bytes = b"inputs") -> bytes:
    """Write a body with these inputs."""
    return b'{"%b":[%b]}' % (name, b",".join(texts))


def members(count: int) -> bytes:
    """Write so many members."""
    return b",".join(b'"k%d":0' % at for at in range(count))


def read(dialect: Dialect, body: bytes) -> ParsedBody | ProxyError | None:
    """Read a *body*, or return the error with which it is refused."""
    try:
        return dialect.read(body, MemberRules(is_tei=True))
    except ProxyError as error:
        return error


def peak_of(dialect: Dialect, body: bytes) -> float:
    """Measure how much memory is taken to read *body*, as a multiple of it."""
    tracemalloc.start()
    try:
        read(dialect, body)
        return tracemalloc.get_traced_memory()[1] / len(body)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("dialect", "body"),
    [
        (EMBED, inputs(*[b"[1]"] * MANY)),
        (EMBED, inputs(*[b'"a"'] * MANY)),
        (EMBED, inputs(*[b'""'] * MANY)),
        (EMBED, inputs(b'"a"', *[b"[1]"] * MANY)),
        (EMBED, inputs(*[b'"\\",\\\\"'] * MANY)),
        (EMBED, inputs(*[b"[]"] * MANY)),
        (EMBED, inputs(*[b'{"a":1}'] * MANY, b'"a"')),
        (PREDICT, inputs(*[PAIR] * MANY)),
        (PREDICT, inputs(*[b"[]"] * MANY, b'"a"')),
        (PREDICT, inputs(*[b'"a"'] * MANY)),
        (TOKENIZE, inputs(*[b'"a"'] * MANY)),
        (DECODE, inputs(*[b"[1]"] * MANY, name=b"ids")),
        (OPENAI, inputs(*[b"[1]"] * MANY, name=b"input")),
        (OPENAI, inputs(*[b'"a"'] * MANY, name=b"input")),
    ],
    ids=lambda value: value[:30] if isinstance(value, bytes) else "",
)
def test_too_many_inputs_are_noticed_before_they_are_made(
    dialect: Dialect, body: bytes
) -> None:
    """Each would take a hundred times its bytes, and its time."""
    found = read(dialect, body)

    assert isinstance(found, CallTooLarge) or found is None
    assert peak_of(dialect, body) < 6


@pytest.mark.parametrize(
    "body",
    [
        inputs(*[b"[1]"] * MANY),
        inputs(*[b'"a"'] * MANY),
        inputs(b'"a"', *[b"[1]"] * MANY),
    ],
    ids=["ids", "texts", "both"],
)
def test_too_many_inputs_are_a_413_that_names_the_setting(body: bytes) -> None:
    """So that the operator knows what to change."""
    error = read(EMBED, body)

    assert isinstance(error, CallTooLarge)
    assert error.status == 413
    assert str(error) == "a call may have 100000 inputs at most (MAX_CALL_INPUTS)"


@pytest.mark.parametrize(
    "body",
    [
        b'{"inputs":["a"],%b}' % members(MANY),
        b'{%b,"inputs":["a"]}' % members(MANY),
        b'{"inputs":["a"],"x":{%b}}' % members(MANY),
        b'{"inputs":["a"],"x":[%b]}' % b",".join([b'":"'] * MANY),
        b'{%b"inputs":["a"]}' % (b'"inputs":["a"],' * 100_000),
    ],
    ids=["behind", "before", "nested", "strings", "the same"],
)
def test_too_many_members_are_noticed_before_they_are_made(body: bytes) -> None:
    """Each would be looked at, and kept calls apart."""
    assert isinstance(read(EMBED, body), CallTooLarge)
    assert peak_of(EMBED, body) < 6


def test_one_member_more_is_too_many() -> None:
    """Also where all of them are short."""
    body = b'{"inputs":["a"],%b}' % members(MAX_MEMBERS + 1)

    assert isinstance(read(EMBED, body), CallTooLarge)


@pytest.mark.parametrize(
    "body",
    [
        b'{"inputs":["a"],%b}' % members(MAX_MEMBERS),
        b'{"inputs":["a"],"x":"%b"}' % (b'\\":' * MAX_MEMBERS * 2),
        b'{"inputs":["%b"]}' % (b":" * MAX_MEMBERS * 2),
        b'{"inputs":["a"],"x":"%b"}' % (b"\\\\:" * MAX_MEMBERS * 2),
    ],
    ids=["members", "quotes", "an input", "backslashes"],
)
def test_colons_in_texts_are_no_members(body: bytes) -> None:
    """And as many members as may be are read."""
    assert isinstance(read(EMBED, body), ParsedBody)


@pytest.mark.parametrize(
    ("body", "lengths"),
    [
        (inputs(*[b"1"] * MANY), [MANY]),
        (inputs(b"[%b]" % b",".join([b"1"] * MANY), b"[ 7 , 8 ]"), [MANY, 2]),
    ],
)
def test_token_ids_are_counted_but_not_made(body: bytes, lengths: list[int]) -> None:
    """One input of 30 MB has 15,000,000 of them."""
    found = read(EMBED, body)

    assert isinstance(found, ParsedBody)
    assert found.items.lengths == lengths
    assert b",".join(found.items.raw) in body
    assert peak_of(EMBED, body) < 6


@pytest.mark.parametrize(
    "body",
    [
        inputs(b"[%b]" % b",".join([b"1"] * MANY), b'"a"', b"1"),
        inputs(b"[%b]" % b",".join([b"1"] * MANY), b'"a"'),
        inputs(*[b"1"] * MANY, b"1.5"),
        inputs(*[b"1"] * MANY, b"[1]"),
        inputs(*[b"1"] * MANY, b"9999999999"),
        inputs(b"[%b]" % b",".join([b"1"] * MANY), b"[ ]"),
        inputs(b"[%b]" % b",".join([b"[1]"] * 3), b"[%b]" % b",".join([b"1"] * MANY)),
    ],
    ids=["mixed", "texts", "float", "list", "long", "empty", "nested"],
)
def test_what_is_no_list_of_ids_is_relayed_without_making_them(body: bytes) -> None:
    """The inference server says what is wrong with it."""
    assert read(EMBED, body) is None
    assert peak_of(EMBED, body) < 6


def test_long_options_are_written_once() -> None:
    """Not again for each of them."""
    value = b"x" * 10_000
    body = b'{"inputs":["a"],%b}' % b",".join(
        b'"k%d":"%b"' % (at, value) for at in range(900)
    )

    assert peak_of(EMBED, body) < 6


# Long bodies are read as short ones are

texts = st.text(st.sampled_from('a,:[]{}"\\\n é'), min_size=0, max_size=5)
ids = st.integers(0, 300)
values = st.one_of(
    st.lists(texts, max_size=6),
    st.lists(ids, max_size=9),
    st.lists(st.lists(ids, max_size=5), max_size=5),
    st.lists(st.lists(texts, max_size=3), max_size=5),
    st.lists(st.one_of(texts, ids, st.lists(ids, max_size=4)), max_size=6),
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.floats(0, 9), ids, texts),
        lambda inner: st.one_of(
            st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=2)
        ),
        max_leaves=9,
    ),
)


@settings(deadline=None)
@given(
    dialect=st.sampled_from([EMBED, PREDICT, TOKENIZE, DECODE, OPENAI]),
    value=values,
    gap=st.sampled_from(["", " ", "\n\t"]),
    is_ascii=st.booleans(),
)
def test_long_inputs_are_read_as_short_ones_are(
    dialect: tei.JSONRoute,
    value: Any,
    gap: str,
    is_ascii: bool,  # noqa: FBT001
) -> None:
    """To the same items, or not at all; only ids among texts may be relayed."""
    written = json.dumps(value, ensure_ascii=is_ascii, separators=(gap + ",", ":"))
    body = f'{{{gap}"{dialect.items}":{gap}{written}{gap}}}'.encode()
    expected = read(dialect, body)

    with pytest.MonkeyPatch.context() as patch:
        for module in (bounds, tei):
            patch.setattr(module, "FEW", 3)
        found = read(dialect, body)

    is_mixed = b'"' in written.encode() and any(c.isdigit() for c in written)
    assert found == expected or (found is None and is_mixed)


# As clients see it


@pytest.mark.parametrize("is_fast", [True, False])
@pytest.mark.parametrize(("count", "status"), [(3, 200), (4, 413)])
def test_a_call_has_as_many_inputs_as_the_operator_allows(
    count: int,
    status: int,
    is_fast: bool,  # noqa: FBT001
) -> None:
    """One more is refused in the words of its route."""
    answer = _ask("/embed", count, is_fast=is_fast)

    assert answer.status == status
    assert (b"MAX_CALL_INPUTS" in answer.body) == (status == 413)


def test_openai_clients_read_message() -> None:
    """As in all their errors."""
    answer = _ask("/v1/embeddings", 4, is_fast=True)

    expected = "a call may have 3 inputs at most (MAX_CALL_INPUTS)"
    assert json.loads(answer.body) == {
        "message": expected,
        "code": 413,
        "type": "Validation",
    }


def _ask(path: str, count: int, *, is_fast: bool) -> Answer:
    rows = b"[%b]" % b",".join([b"[1]"] * count)
    proxy = in_memory_proxy(Saying(rows), is_fast=is_fast, max_call_inputs=3)
    name = "input" if path.startswith("/v1") else "inputs"
    body = json.dumps({name: ["a"] * count}).encode()
    return proxy.ask("POST", path, body, ("Content-Type", "application/json"))


def test_the_default_is_what_the_dialects_assume() -> None:
    """Where no operator has a word."""
    assert in_memory_proxy(Saying(b"")).served.reader.members.max_inputs == MAX_INPUTS


@pytest.mark.parametrize("first", [True, False])
def test_a_body_of_which_little_are_inputs_is_relayed(first: bool) -> None:  # noqa: FBT001
    """To read a megabyte of options again and again is not worth a shared request."""
    long = b'"x":"%b"' % (b"x" * MAX_OPTIONS)
    parts = [long, b'"inputs":["a"]']
    short = b'{"x":"x","inputs":["a"]}'

    assert read(EMBED, b"{%b}" % b",".join(parts if first else parts[::-1])) is None
    assert isinstance(read(EMBED, short), ParsedBody)
