"""Who may share: equal options are equal bytes."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from abproxy.dialects.call import Dialect
from abproxy.dialects.openai import OPENAI
from abproxy.dialects.tei import DECODE, EMBED, PREDICT, TOKENIZE


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
def test_a_default_that_is_spelled_out_keeps_nobody_apart(
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
    """A member that nobody here knows is compared as it is spelled."""
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
