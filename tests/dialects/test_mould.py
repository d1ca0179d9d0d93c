"""An object with gaps is filled as it was written."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from abproxy.dialects.mould import mould_of

names = st.sampled_from(["data", "usage", "model", 'q"\\', "é"])
values = st.sampled_from(["1.50", '"x"', "[1, 2]", "null", '{"a":{}}'])


@given(members=st.dictionaries(names, values))
def test_an_object_is_filled_with_what_was_taken_out(members: dict[str, str]) -> None:
    """Every member is where it was, each value to the letter."""
    pairs = [
        f"{msgspec.json.encode(name).decode()}:{value}"
        for name, value in members.items()
    ]
    written = "{" + ",".join(pairs) + "}"
    found = msgspec.json.decode(written, type=dict[str, msgspec.Raw])
    mould = mould_of(found, ("data", "usage"))

    filled = mould.fill({name: value.encode() for name, value in members.items()})

    assert filled.decode() == written
    assert set(mould.gaps) == {"data", "usage"} & members.keys()
