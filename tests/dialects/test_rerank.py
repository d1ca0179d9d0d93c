"""A call of /rerank is pairs, and its answer is put together of their scores."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from abproxy.dialects.call import BadAnswer, Items, UnsplittableAnswer
from abproxy.dialects.members import MemberRules
from abproxy.dialects.rerank import MOST_REPEATED, RERANK
from abproxy.errors import CallTooLarge
from support.reranker import SCORES, Reranker, spell

DEEP = b"[" * 100_000 + b"]" * 100_000


def items_of(body: bytes) -> Items:
    """Return the items of a body that is parsed."""
    parsed = RERANK.read(body)
    assert parsed is not None
    return parsed.items


@pytest.mark.parametrize(
    "body",
    [
        b'{"query":"q","texts":["\\u00e9","b"]}',
        b'{"texts":["\\u00e9","b"],"query":"q"}',
        b' {\n"texts" : [ "\\u00e9" , "b" ] , "query": "q"} ',
    ],
)
def test_an_item_is_the_query_and_a_text_as_they_are_spelled(body: bytes) -> None:
    """In whatever order they come; TEI counts the characters of both."""
    items = items_of(body)

    assert items.raw == [b'["q","\\u00e9"]', b'["q","b"]']
    assert items.lengths == [2, 2]
    assert not items.has_texts


def test_what_is_asked_for_with_the_scores_is_no_option() -> None:
    """`return_text` is for the proxy to do, so it keeps no calls apart."""
    body = b'{"query":"q","texts":["a"],"return_text":true,"raw_scores":true}'
    parsed = RERANK.read(body)

    assert parsed is not None
    assert parsed.options == b',"raw_scores":true'
    assert parsed.items.has_texts


@pytest.mark.parametrize("name", ["return_text", "query"])
def test_the_operator_may_send_calls_with_a_member_alone(name: str) -> None:
    """Also with those that are no options, as where only /rerank is let through."""
    body = b'{"query":"q","texts":["a"],"return_text":true}'

    parsed = RERANK.read(body, MemberRules(is_tei=True, alone=[f"body.{name}"]))

    assert parsed is not None
    assert parsed.alone_by == name


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"query":"q","texts":["a"]} x',
        b'{"query":"q","texts":["a"],"truncation_direction":"up"}',
        b'{"query":"q","texts":["a"],"return_text":null}',
        b'{"query":"q","texts":' + DEEP + b"}",
        b'{"query":' + DEEP + b',"texts":["a"]}',
        b'{"query":"q","texts":[' + b"1," * 200_000 + b"1]}",
    ],
)
def test_what_tei_might_refuse_is_not_parsed(body: bytes) -> None:
    """The server says what it thinks of it."""
    assert RERANK.read(body) is None


def test_more_texts_than_a_call_may_have_are_refused() -> None:
    """Before any of them is made something of, and with fewer too."""
    few = MemberRules(is_tei=True, max_inputs=2)
    with pytest.raises(CallTooLarge):
        RERANK.read(b'{"query":"q","texts":["a","b","c"]}', few)
    with pytest.raises(CallTooLarge):
        RERANK.read(b'{"query":"q","texts":[' + b'"a",' * 200_000 + b'"a"]}')


def test_a_long_query_before_many_texts_is_left_to_the_server() -> None:
    """It would be repeated with each text, so that a small body becomes a large one."""
    texts = [b'"a"'] * 1000

    def body(length: int) -> bytes:
        return b'{"query":"%b","texts":[%b]}' % (b"q" * length, b",".join(texts))

    most = MOST_REPEATED // len(texts) - len(b'""')
    assert RERANK.read(body(most)) is not None
    assert RERANK.read(body(most + 1)) is None


def test_a_batch_is_pairs_for_predict() -> None:
    """The route that takes any queries."""
    written = RERANK.batch_body([b'["q","a"]', b'["p","b"]'], b',"raw_scores":true')

    assert RERANK.batch_path == b"/predict"
    assert written == b'{"inputs":[["q","a"],["p","b"]],"raw_scores":true}'


@pytest.mark.parametrize("label", ["LABEL_0", 'a"],["b', "é"])
def test_scores_keep_their_digits(label: str) -> None:
    """Whatever the label is."""
    rows = ",".join(
        f'[{{"score":{score},"label":{spell(label).decode()}}}]' for score in SCORES
    )

    [one, two] = RERANK.split(f"[{rows}]".encode(), [[1] * 3, [1] * (len(SCORES) - 3)])

    assert [score.decode() for score in (*one.raw, *two.raw)] == SCORES


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"[]", BadAnswer),
        (b'[[{"score":1,"label":"a"}]]', BadAnswer),
        (b'[[{"score":1}],[{"score":null}]]', BadAnswer),
        (b'[[{"score":1}],[{"score":"2"}]]', BadAnswer),
        (b'[[{"score":1}],[]]', UnsplittableAnswer),
        (b'[[{"score":1},{"score":0}],[{"score":1},{"score":0}]]', UnsplittableAnswer),
        (b'{"scores":[1,2]}', UnsplittableAnswer),
        (b'[{"index":0,"score":1},{"index":0,"score":1}]', BadAnswer),
        (b'[{"index":0,"score":1},{"index":2,"score":1}]', BadAnswer),
        (b'[{"index":0,"score":1}]', BadAnswer),
        (b'[{"index":0,"score":1},{"index":1,"score":null}]', BadAnswer),
    ],
)
def test_an_answer_without_one_score_for_each_pair_is_refused(
    body: bytes, error: type[BadAnswer]
) -> None:
    """No caller gets a score that may be another's."""
    with pytest.raises(BadAnswer) as raised:
        RERANK.split(body, [[1], [1]])
    assert raised.type is error


TEXTS = st.lists(st.text(max_size=4), min_size=1, max_size=12)


@given(texts=TEXTS, return_text=st.booleans(), data=st.data())
def test_parts_of_a_call_are_put_together_as_tei_sorts_them(
    texts: list[str], data: st.DataObject, *, return_text: bool
) -> None:
    """Cut anywhere, the bytes are those of the one answer, ties included."""
    body = spell({"query": "q", "texts": texts, "return_text": return_text})
    model = Reranker()
    _, whole = model.rerank(msgspec.json.decode(body))
    items = items_of(body)
    _, rows = model.predict({"inputs": [["q", text] for text in texts]})
    cut = data.draw(st.integers(0, len(texts)))

    parts = RERANK.split(rows, [items.lengths[:cut], items.lengths[cut:]])

    assert RERANK.write(parts, items) == whole
    assert RERANK.write(RERANK.split(whole, [items.lengths]), items) == whole
