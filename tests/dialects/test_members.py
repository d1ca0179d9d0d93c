"""The members of an object, as the client's own bytes."""

import json
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from abproxy.dialects.members import read_elements, read_members

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
