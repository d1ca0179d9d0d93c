"""A re-ranker as TEI serves it, whose scores depend on nothing but the pair."""

import json
from collections.abc import Mapping, Sequence
from typing import Any
from zlib import crc32

import msgspec
from attrs import define, field
from twisted.web.resource import Resource
from twisted.web.server import Request

SCORES = ["0.5344249", "0.50293905", "-0.11015704", "1.2e-7", "0.0", "-0.0", "3.4e38"]
"""Few, so that many are equal; two of them are, though they are written otherwise."""

LONGEST = 40
"""Characters of a pair that need no truncation."""

Pair = tuple[str, str]


@define
class Refused(Exception):
    """The whole request is refused."""

    status: int
    message: str
    kind: str

    @property
    def body(self) -> bytes:
        """What TEI says."""
        return spell({"error": self.message, "error_type": self.kind})


def spell(value: Any) -> bytes:
    """Write JSON as TEI does."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


@define(kw_only=True)
class Reranker:
    """What the server computes and says."""

    most: int = 32
    """Inputs that a request may have."""

    known: Mapping[Pair, str] = field(factory=dict)
    """The scores of some pairs."""

    def score(self, query: str, text: str) -> str:
        """Return the digits of a score."""
        pair = query, text
        drawn = SCORES[crc32(repr(pair).encode()) % len(SCORES)]
        return self.known.get(pair, drawn)

    def rerank(self, body: Mapping[str, Any]) -> tuple[list[Pair], bytes]:
        """Answer /rerank."""
        query, texts = body["query"], body["texts"]
        if not texts:
            raise Refused(400, "`texts` cannot be empty", "Empty")
        pairs = [(query, text) for text in texts]
        self._check(pairs, body)
        scores = [self.score(*pair) for pair in pairs]
        # As its source has it: a stable sort, and then all of it turned round.
        places = sorted(range(len(texts)), key=lambda at: float(scores[at]))
        return pairs, b"[%b]" % b",".join(
            self._rank(at, texts[at], scores[at], body) for at in reversed(places)
        )

    def predict(self, body: Mapping[str, Any]) -> tuple[list[Pair], bytes]:
        """Answer /predict."""
        pairs = [(query, text) for query, text in body["inputs"]]
        self._check(pairs, body)
        return pairs, b"[%b]" % b",".join(
            b'[{"score":%b,"label":"LABEL_0"}]' % self.score(*pair).encode()
            for pair in pairs
        )

    def _check(self, pairs: Sequence[Pair], body: Mapping[str, Any]) -> None:
        if len(pairs) > self.most:
            most = f"maximum allowed batch size {self.most}"
            raise Refused(422, f"batch size {len(pairs)} > {most}", "Validation")
        for query, text in pairs:
            if not query and not text:
                raise Refused(400, "`inputs` cannot be empty", "Empty")
            length = len(query) + len(text)
            if length > LONGEST and body.get("truncate") is False:
                message = f"must have less than {LONGEST} tokens. Given: {length}"
                raise Refused(422, message, "Validation")

    @staticmethod
    def _rank(at: int, text: str, score: str, body: Mapping[str, Any]) -> bytes:
        said = b'"text":%b,' % spell(text) if body.get("return_text") else b""
        return b'{"index":%d,%b"score":%b}' % (at, said, score.encode())


@define(kw_only=True)
class RerankServer(Resource):
    """Serves a re-ranker, and keeps what it was asked."""

    isLeaf = True

    reranker: Reranker = field(factory=Reranker)
    asked: list[tuple[str, Any]] = field(init=False, factory=list)
    """The path and the body of each request."""

    __hash__ = object.__hash__

    def __attrs_pre_init__(self) -> None:
        super().__init__()

    def render_POST(self, request: Request) -> bytes:  # noqa: N802
        """Answer one request."""
        path = request.path.decode()
        raw = request.content.read()
        try:
            body = msgspec.json.decode(raw)
        except msgspec.DecodeError:
            request.setResponseCode(400)
            return b"Failed to parse the request body as JSON"
        self.asked.append((path, body))
        answer = self.reranker.predict if path == "/predict" else self.reranker.rerank
        try:
            pairs, written = answer(body)
        except Refused as refused:
            request.setResponseCode(refused.status)
            return refused.body
        except (KeyError, TypeError, ValueError):
            request.setResponseCode(422)
            return b"Failed to deserialize the JSON body into the target type"
        characters = sum(len(query) + len(text) for query, text in pairs)
        request.setHeader("X-Compute-Characters", str(characters))
        return written

    @property
    def sizes(self) -> list[int]:
        """How many pairs each shared request had."""
        return [len(body["inputs"]) for path, body in self.asked if path == "/predict"]
