"""Calls of /embed in the language of a server that has the OpenAI API only."""

import pytest

from abproxy.dialects.call import BadAnswer, Items
from abproxy.dialects.translate import before_openai
from abproxy.errors import CannotTranslate

EMBED = before_openai("/v1/embeddings", None)[b"/embed"]
NAMED = before_openai("/v1/embeddings", "m")[b"/embed"]
LIST = Items(raw=(), lengths=())


@pytest.mark.parametrize(
    ("body", "options"),
    [
        (b'{"inputs":["a"]}', b""),
        (b'{"inputs":["a"],"normalize":true,"truncate":true,"prompt_name":null}', b""),
        (b'{"inputs":["a"],"truncation_direction":"right","parameters":{}}', b""),
        (b'{"dimensions":7,"inputs":["a"]}', b',"dimensions":7'),
        (b'{"inputs":["a"],"model":"x"}', b',"model":"x"'),
    ],
)
def test_options_are_those_of_the_other_route(body: bytes, options: bytes) -> None:
    """What is a default there too is left out, and what TEI ignores."""
    parsed = EMBED.read(body)

    assert parsed is not None
    assert parsed.options == options
    assert EMBED.batch_body(parsed.items.raw, options) == b'{"input":["a"]%b}' % options


def test_the_only_model_is_named_for_calls_that_name_none() -> None:
    """The OpenAI API asks for a name, and clients of TEI have none."""
    parsed = NAMED.read(b'{"inputs":"a"}')
    other = NAMED.read(b'{"inputs":"a","model":"x"}')

    assert parsed is not None
    assert parsed.options == b',"model":"m"'
    assert other is not None
    assert other.options == b',"model":"x"'


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("normalize", "false"),
        ("prompt_name", '"query"'),
        ("truncate", "false"),
        ("truncation_direction", '"Left"'),
    ],
)
def test_what_the_server_cannot_do_is_refused(member: str, value: str) -> None:
    """With the name of the member; twice, as what was parsed is remembered."""
    body = f'{{"inputs":["a"],"{member}":{value}}}'.encode()
    for _ in range(2):
        with pytest.raises(CannotTranslate) as caught:
            EMBED.read(body)
        assert f"leave {member} out" in str(caught.value)


@pytest.mark.parametrize(
    "body", [b"", b"{}", b'{"inputs":[]}', b'{"inputs":[""]}', b'{"inputs":"a"} x']
)
def test_what_is_no_call_is_refused(body: bytes) -> None:
    """There is no route to relay it to."""
    with pytest.raises(CannotTranslate):
        EMBED.read(body)


PLAIN = '{"object":"embedding","embedding":%s,"index":%d}'
OTHER = '{"index": %d, "embedding": %s, "object": "embedding"}'


@pytest.mark.parametrize(
    "rows",
    [
        [PLAIN % ("[0.10,-1e-7]", 0), PLAIN % ("[2.50]", 1)],
        [OTHER % (1, "[2.50]"), OTHER % (0, "[0.10,-1e-7]")],
        [
            '{"embedding":[0.10,-1e-7],"object":"embedding","index":0}',
            '{"embedding":[2.50],"object":"embedding","index":1}',
        ],
        ['{"embedding":[0.10,-1e-7]}', '{"embedding":[2.50]}'],
    ],
)
def test_vectors_keep_their_digits(rows: list[str]) -> None:
    """However the server writes its rows; and what we wrote is split again."""
    usage = '"usage":{"prompt_tokens":2,"total_tokens":2}'
    data = ",".join(rows)
    body = f'{{"object":"list","data":[{data}],"model":"m",{usage}}}'.encode()

    parts = EMBED.split(body, [[1], [1]])

    assert [EMBED.write([part], LIST) for part in parts] == [
        b"[[0.10,-1e-7]]",
        b"[[2.50]]",
    ]
    whole = EMBED.write(parts, LIST)
    assert EMBED.write(EMBED.split(whole, [[1], [1]]), LIST) == whole


@pytest.mark.parametrize("vector", ['"AAAA"', "null", "{}"])
def test_an_embedding_that_is_no_list_of_numbers_is_refused(vector: str) -> None:
    """A client of TEI could not read it."""
    body = f'{{"object":"list","data":[{PLAIN % (vector, 0)}],"usage":null}}'.encode()
    with pytest.raises(BadAnswer):
        EMBED.split(body, [[1]])


def test_in_front_of_any_other_server_nothing_is_translated() -> None:
    """TEI has both routes, and of others nothing is known."""
    assert not before_openai(None, None)
