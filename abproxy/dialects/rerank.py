"""
The route of re-rankers: how well each of several texts answers a query.

TEI computes a score from the query and one text, whatever the other texts are, and
`/predict` of a re-ranker takes such pairs of any queries.  So an item here is a pair,
calls with different queries share a batch, and a call of more texts than fit is
split.  Its answer is sorted when all scores are there, as TEI sorts it: by score, and
equal ones from the last to the first.  Source: `router/src/http/server.rs` of TEI 1.9.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Annotated, cast

import msgspec
from attrs import frozen

from abproxy.dialects.bounds import Kind, check_members, look_over, too_many
from abproxy.dialects.call import (
    BadAnswer,
    Items,
    ParsedBody,
    Rows,
    UnsplittableAnswer,
)
from abproxy.dialects.members import OF_TEI, MemberRules
from abproxy.dialects.parse import (
    NOT_JSON,
    Options,
    read_elements,
    read_members,
    read_options,
    write_members,
)
from abproxy.dialects.split import Lengths, Order, distribute, find_values
from abproxy.dialects.tei import JSONRoute, TruncatingBody

__all__ = ["RERANK"]

MOST_REPEATED = 16 << 20
"""
Bytes that all pairs of a call may have more than its texts.

The query is in each pair: a long one before many texts is relayed, once for all.
"""

QUERY = "query"


class RerankBody(TruncatingBody, kw_only=True):
    query: str
    texts: Annotated[list[str], msgspec.Meta(min_length=1)]
    raw_scores: bool = False
    return_text: bool = False


class _Score(msgspec.Struct):
    score: msgspec.Raw


class _Rank(_Score):
    index: int


_decode_texts = msgspec.json.Decoder(list[str]).decode
_decode_pair = msgspec.json.Decoder(tuple[str, str]).decode
_decode_scores = msgspec.json.Decoder(list[_Score]).decode
_decode_ranks = msgspec.json.Decoder(list[_Rank]).decode
_NUMBER = rb"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?"
_is_number = re.compile(_NUMBER).fullmatch
_match_score = re.compile(
    rb'\[\{"score":(%b),"label":"[^"\\]*"\}\]' % _NUMBER
).fullmatch
_RANKED = re.compile(rb"[ \t\r\n]*\[[ \t\r\n]*\{")


@frozen(kw_only=True, eq=False)
class RerankRoute(JSONRoute):
    """The dialect of /rerank, whose batches are sent to /predict."""

    of_task: str | None = "reranker"

    batch_path: bytes = b"/predict"

    def read(self, body: bytes, rules: MemberRules = OF_TEI) -> ParsedBody | None:
        """
        Parse *body* by the *rules*; None for all that TEI might read otherwise.

        Raises:
            CallTooLarge: it has more texts than the *rules* allow, or more
                members than anyone needs.
        """
        try:
            raw, suffix = self._suffixes.split(body)
            check_members(suffix or body.replace(raw, b"", 1))
            members = read_members(body)
            if members is None:
                return None
            return self._read(raw, members, rules)
        except NOT_JSON:
            return None

    def _read(
        self, raw: bytes, members: dict[str, bytes], rules: MemberRules
    ) -> ParsedBody | None:
        if look_over(raw, rules.max_inputs, texts=1) is not Kind.PLAIN:
            return None
        # The texts are read by themselves.
        written = write_members({**members, self.items: b"null"})
        known = cast("RerankBody", self._decode(written))
        items = _pairs(known, members[QUERY], raw)
        if items is None:
            return None
        if len(items.raw) > rules.max_inputs:
            raise too_many(rules.max_inputs)
        options = _read_options(known, members, rules)
        return ParsedBody(
            items=items, options=options.shared, alone_by=options.alone_by
        )

    def batch_body(self, items: Sequence[bytes], options: bytes) -> bytes:
        """Write `{"inputs":[["query","text"],…],…}`, as /predict reads it."""
        return b'{"inputs":[%b]%b}' % (b",".join(items), options)

    def split(self, body: bytes, lengths: Lengths, order: Order = None) -> list[Rows]:
        """
        Split the scores among the parts, of pairs or of one call by itself.

        Raises:
            UnsplittableAnswer: there is another number of scores for a pair than one.
            BadAnswer: there is not one score for each text.
        """
        count = sum(map(len, lengths))
        ranked = _RANKED.match(body) is not None
        scores = _ranked_scores(body, count) if ranked else _scores(body, count)
        return distribute(scores, lengths, order)

    def write(self, parts: Sequence[Rows], items: Items) -> bytes:
        """Write all scores, sorted, and the texts where they were asked for."""
        scores = [row for part in parts for row in part.raw]
        numbers = [(float(score), at) for at, score in enumerate(scores)]
        places = [at for _, at in sorted(numbers, reverse=True)]
        if items.has_texts:
            ranks = [
                b'{"index":%d,"text":%b,"score":%b}'
                % (at, _text_of(items.raw[at]), scores[at])
                for at in places
            ]
        else:
            ranks = [b'{"index":%d,"score":%b}' % (at, scores[at]) for at in places]
        return b"[%b]" % b",".join(ranks)


def _pairs(known: RerankBody, query: bytes, raw: bytes) -> Items | None:
    """
    Return the *query*, as it is written, with each text in *raw*; None to relay them.

    A pair of which both sides are empty is refused, and an empty list in words that
    /predict does not have.
    """
    texts = _decode_texts(raw)
    if not texts or not (known.query or all(texts)):
        return None
    if len(query) * len(texts) > MOST_REPEATED:
        return None
    return Items(
        raw=[b"[%b,%b]" % (query, text) for text in read_elements(raw)],
        lengths=[len(known.query) + len(text) for text in texts],
        has_texts=known.return_text,
    )


def _read_options(
    known: RerankBody, members: dict[str, bytes], rules: MemberRules
) -> Options:
    """Return the options; `return_text` is no matter of the upstream's."""
    options = read_options(known, members, rules)
    alone_by = options.alone_by
    if rules.is_alone(QUERY, members[QUERY], is_known=True):
        alone_by = QUERY  # which is no option, so it was not looked at
    if known.return_text:
        known.return_text = False
        options = read_options(known, members, rules)
    return Options(options.shared, alone_by)


def _text_of(pair: bytes) -> bytes:
    """Return the text of a *pair*, spelled as TEI does, whatever its client wrote."""
    return msgspec.json.encode(_decode_pair(pair)[1])


def _scores(body: bytes, count: int) -> list[bytes]:
    """Return the scores in an answer of /predict, in the order of the pairs."""
    rows = find_values(body, count)
    found = list(map(_match_score, rows))
    if None not in found:
        return [match[1] for match in found if match]
    try:
        labels = list(map(_decode_scores, rows))
    except NOT_JSON as error:
        raise BadAnswer(f"a row without a score: {error}") from error
    if any(len(each) != 1 for each in labels):
        raise UnsplittableAnswer("there is not one score for each pair")
    return _checked(each.score for [each] in labels)


def _ranked_scores(body: bytes, count: int) -> list[bytes]:
    """Return the scores in an answer of /rerank, in the order of the texts."""
    try:
        ranks = _decode_ranks(body)
    except NOT_JSON as error:
        raise BadAnswer(f"no list of scores: {error}") from error
    ranks.sort(key=lambda rank: rank.index)
    if [rank.index for rank in ranks] != list(range(count)):
        raise BadAnswer("the scores are not one for each text")
    return _checked(rank.score for rank in ranks)


def _checked(scores: Iterable[msgspec.Raw]) -> list[bytes]:
    written = list(map(bytes, scores))
    if not all(map(_is_number, written)):
        raise BadAnswer("a score that is no number")
    return written


RERANK = RerankRoute(path=b"/rerank", items="texts", body=RerankBody, has_ids=False)
