"""Members and options of a body, as the client's own bytes."""

import json
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from abproxy.dialects.call import Dialect
from abproxy.dialects.openai import OPENAI
from abproxy.dialects.parse import read_elements, read_members
from abproxy.dialects.tei import DECODE, EMBED, PREDICT, TOKENIZE

json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)
    ),
    max_leaves=8,
)
plain_names = st.text(
    st.characters(codec="utf-8", exclude_characters='"\\', min_codepoint=32)
)
spaces = st.text(" \t\r\n", max_size=3)


@given(
    members=st.dictionaries(plain_names, json_values),
    space=spaces,
    indent=st.booleans(),
)
def test_every_member_is_found_as_it_is_spelled(
    members: dict[str, object], space: str, *, indent: bool
) -> None:
    """Whatever the values are and wherever white space stands."""
    spelled = {name: json.dumps(value) for name, value in members.items()}
    gap = space if indent else ""
    pairs = f"{gap},{gap}".join(
        f"{json.dumps(name, ensure_ascii=False)}{gap}:{gap}{value}"
        for name, value in spelled.items()
    )
    body = f"{gap}{{{gap}{pairs}{gap}}}{gap}".encode()

    assert read_members(body) == {
        name: value.encode() for name, value in spelled.items()
    }


@given(first=st.text(), second=st.text())
def test_one_name_twice_is_never_plain(first: str, second: str) -> None:
    """However both are spelled, and whatever stands between them."""
    one, two = json.dumps(first), json.dumps(second)
    found = read_members(f'{{{one}:1,"between":"{{",{two}:1}}'.encode())

    if found is not None:
        assert len({first, second, "between"}) == 3
        assert found == {first: b"1", second: b"1", "between": b'"{"'}


@pytest.mark.parametrize("body", [b"", b"[]", b"1", b"{", b'{"a"}', b'{"a":1}}'])
def test_what_is_no_object_has_no_members(body: bytes) -> None:
    """It is not for us to complain."""
    assert read_members(body) is None


def test_an_empty_object_has_no_members() -> None:
    """Which is not the same as no object."""
    assert read_members(b" { } ") == {}


def test_what_is_nested_too_deep_has_no_elements() -> None:
    """An answer made to exhaust the stack is a bad answer."""
    with pytest.raises(ValueError, match="nested too deep"):
        read_elements(b"[" * 100_000 + b"]" * 100_000)


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":1' + b" " * 2_000_000 + b"x",
        b'{"a":1' + b" " * 2_000_000 + b"}",
        b'{"' + b"a" * 2_000_000,
        b"{" + b'"a":1,' * 300_000 + b'"b":1}',
        b"{" + b",".join(b'"%d":1' % at for at in range(200_000)) + b"}",
        b'{"a":"' + b'\\"' * 1_000_000 + b'"}',
    ],
    ids=["spaces", "trailing spaces", "long name", "one name", "many names", "escapes"],
)
def test_a_large_body_takes_time_in_proportion(body: bytes) -> None:
    """No text is read again and again: seconds would mean that it is."""
    start = process_time()

    read_members(body)

    assert process_time() - start < 2


# Options: equal ones are equal bytes


def options(dialect: Dialect, *members: bytes) -> bytes:
    """Read a body with one item and some other members."""
    items = {b"/decode": b'"ids":[1]', b"/v1/embeddings": b'"input":"a"'}
    first = items.get(dialect.path, b'"inputs":"a"')
    parsed = dialect.read(b"{%b}" % b",".join((first, *members)))
    assert parsed is not None
    return parsed.options


@pytest.mark.parametrize(
    ("dialect", "member"),
    [
        (EMBED, b'"truncate":null'),
        (EMBED, b'"prompt_name":null'),
        (EMBED, b'"dimensions":null'),
        (EMBED, b'"normalize":true'),
        (EMBED, b'"truncation_direction":"Right"'),
        (EMBED, b'"truncation_direction":"right"'),
        (PREDICT, b'"raw_scores":false'),
        (TOKENIZE, b'"add_special_tokens":true'),
        (DECODE, b'"skip_special_tokens":true'),
        (OPENAI, b'"encoding_format":"float"'),
        (OPENAI, b'"model":null'),
        (OPENAI, b'"user":null'),
    ],
)
def test_a_default_that_is_spelled_out_keeps_no_calls_apart(
    dialect: Dialect, member: bytes
) -> None:
    """Absent, null where TEI allows it, and the default are one."""
    assert options(dialect, member) == b""


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b'"truncate":true', b'"truncate" : true'),
        (b'"truncation_direction":"left"', b'"truncation_direction":"Left"'),
        (b'"prompt_name":"q"', b'"prompt_name":"\\u0071"'),
        (b'"dimensions":8,"truncate":true', b'"truncate":true,"dimensions":8'),
        (b'"y":1,"x":2', b'"x":2,"y":1'),
    ],
)
def test_options_of_equal_value_are_equal_bytes(one: bytes, other: bytes) -> None:
    """Spelling and order of what is known do not count."""
    assert options(EMBED, one) == options(EMBED, other) != b""


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b'"truncate":true', b'"truncate":false'),
        (b'"truncate":false', b'"x":1'),
        (b'"x":1', b'"x":1.0'),
        (b'"x":1', b'"x":"1"'),
        (b'"x":null', b'"y":null'),
        (b'"x":"a"', b'"x":"\\u0061"'),
        (b'"X":1', b'"x":1'),
    ],
)
def test_options_that_may_differ_are_different_bytes(one: bytes, other: bytes) -> None:
    """An unknown member is compared as it is spelled."""
    assert options(EMBED, one) != options(EMBED, other)


def test_the_model_and_the_user_keep_calls_apart() -> None:
    """A server with several models answers by them."""
    assert options(OPENAI, b'"user":"u"', b'"model":"m"') == b',"model":"m","user":"u"'


def test_an_unknown_member_keeps_its_bytes() -> None:
    """It goes upstream as the client wrote it."""
    member = b'"x":{ "a" : [1.50, 1e999, "\\u00e9"] }'

    assert options(EMBED, member) == b"," + member


values = st.one_of(st.none(), st.booleans(), st.integers(), st.text(), st.floats(0, 1))


@given(
    texts=st.lists(st.text(min_size=1), min_size=1),
    more=st.dictionaries(
        st.text(st.characters(codec="utf-8", exclude_characters='"\\')), values
    ),
)
def test_a_batch_says_what_the_call_said(
    texts: list[str], more: dict[str, object]
) -> None:
    """What is sent for a call has the members of its body, value by value."""
    body = {"truncate": True, **more, "inputs": texts}
    parsed = EMBED.read(json.dumps(body, ensure_ascii=False).encode())

    if parsed is not None:
        sent = EMBED.batch_body(parsed.items.raw, parsed.options)
        for name, default in (("normalize", True), ("prompt_name", None)):
            body.setdefault(name, default)
        assert {**body, **json.loads(sent)} == body
        assert EMBED.read(sent) == parsed
