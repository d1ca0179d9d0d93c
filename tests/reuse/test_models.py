"""Several models at one address: the rows of one are never those of another."""

from pathlib import Path

import pytest

from abproxy.dialects.call import Call
from abproxy.reuse.entry import Keys
from support.models import several_models


@pytest.fixture
def prefixes(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What the keys of each call begin with that is looked up."""
    looked_up: list[bytes] = []
    prefix_of = Keys.prefix

    def prefix(self: Keys, call: Call) -> bytes:
        looked_up.append(prefix_of(self, call))
        return looked_up[-1]

    monkeypatch.setattr(Keys, "prefix", prefix)
    return looked_up


@pytest.mark.parametrize(
    ("path", "inputs", "line"),
    [
        ("/embed", "inputs", 'upstream_headers = ["X-Model: {name}"]'),
        ("/embed", "inputs", 'dialect = "openai"'),
        ("/v1/embeddings", "input", 'dialect = "openai"\nmodel = "at-{name}"'),
        ("/embed", "inputs", 'cache_epoch = "{name}"'),
    ],
)
def test_models_at_one_address_share_no_remembered_row(
    tmp_path: Path, prefixes: list[bytes], path: str, inputs: str, line: str
) -> None:
    """Though the server says nothing of them: what tells them apart is in the key."""
    text = "".join(
        f'[{name}]\nurl = "http://gateway"\n{line.format(name=name)}\n'
        for name in ("one", "other")
    )
    with several_models(tmp_path, text, CACHE_BYTES="1000000") as here:
        of_each = []
        for name in ("one", "one", "other"):
            prefixes.clear()
            named = {"model": name} if inputs == "input" else {}
            here.call(f"/models/{name}{path}", **{inputs: ["a"]}, **named)
            here.answer_all()
            of_each.append(set(prefixes))

    one, again, other = of_each
    assert one == again
    assert not one & other
