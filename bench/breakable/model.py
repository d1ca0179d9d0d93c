"""
What TEI would say: which request is refused, and what the others are answered.

No I/O and no time; permits, which depend on who else is being served, are
counted in `work`.
"""

from collections.abc import Callable
from typing import Any

import msgspec
from attrs import frozen

from bench.breakable.messages import Answer, Request, error
from bench.breakable.rows import row_of, spell, spell_base64
from bench.breakable.shapes import usage, write
from bench.breakable.traits import MODEL, Traits

__all__ = ["Job", "info", "models", "read_job", "rerank"]

OPENAI = frozenset({b"/v1/embeddings", b"/embeddings"})
EMBED = frozenset({b"/embed", b"/", b"/invocations"})
Rows = list[bytes]


class _Body(msgspec.Struct):
    inputs: Any = msgspec.UNSET
    input: Any = msgspec.UNSET
    encoding_format: str = "float"
    late_chunking: bool = False
    modality: list[str] | None = None


@frozen(kw_only=True)
class Job:
    """The inputs of one request that is worth computing."""

    inputs: list[Any]
    is_openai: bool
    is_base64: bool = False
    contexts: list[Any] | None = None
    """What else the row of each input depends on, if it does."""

    def holds(self, text: str) -> bool:
        """Whether *text* is in any of the inputs."""
        return any(isinstance(each, str) and text in each for each in self.inputs)

    def refusal(self, traits: Traits) -> Answer | None:
        """Say what is wrong with the inputs; None if nothing is."""
        count = len(self.inputs)
        if count > traits.max_batch:
            limit = f"batch size {count} > maximum allowed batch size"
            return self.error(422, f"{limit} {traits.max_batch}", "Validation")
        if not count or "" in self.inputs:
            told = "Input validation error: `inputs` cannot be empty"
            return self.error(400, told, "Empty")
        if not all(isinstance(each, str | list) for each in self.inputs):
            return self.error(422, "expected texts, or lists of ids", "Validation")
        if self.contexts is not None and len(self.contexts) != count:
            return self.error(422, "modality: one for each input", "Validation")
        if self.holds(traits.bad_text):
            told = f"Input validation error: `inputs` must not say {traits.bad_text}"
            return self.error(422, told, "Validation")
        return None

    def error(self, status: int, message: str, kind: str) -> Answer:
        """Write an error in the words of the route."""
        return error(status, message, kind, openai=self.is_openai)

    def answer(self, traits: Traits, spoil: Callable[[Rows], Rows]) -> Answer:
        """Compute the rows, let *spoil* have them, and write the answer."""
        rows = spoil([self._row(at, traits) for at in range(len(self.inputs))])
        tokens = usage(sum(map(len, self.inputs)), is_detailed=traits.detailed_usage)
        return Answer(body=write(rows, traits.shape, tokens, openai=self.is_openai))

    def _row(self, at: int, traits: Traits) -> bytes:
        item = self.inputs[at]
        whole = item if self.contexts is None else [item, self.contexts[at]]
        if traits.model != MODEL or traits.sha:
            whole = [traits.model, traits.sha, whole]
        spelled = (spell_base64 if self.is_base64 else spell)(whole, traits.dimensions)
        if traits.nan_text and isinstance(item, str) and traits.nan_text in item:
            return b"[NaN%b" % spelled[spelled.find(b",") :]
        return spelled


def read_job(request: Request) -> Job | Answer | None:
    """Understand an inference request; None if its path is none of those."""
    is_openai = request.path in OPENAI
    if request.method != b"POST" or not (is_openai or request.path in EMBED):
        return None
    if b"json" not in request.headers.get(b"content-type", b"").lower():
        return Answer(status=415)
    try:
        body = msgspec.json.decode(request.body, type=_Body)
    except RecursionError:
        return Answer(status=400, body=b"nested too deeply")
    except (msgspec.DecodeError, UnicodeDecodeError) as wrong:
        status = 422 if isinstance(wrong, msgspec.ValidationError) else 400
        return Answer(status=status, body=str(wrong).encode())
    found = body.input if is_openai else body.inputs
    if found is msgspec.UNSET:
        return Answer(status=422, body=b"missing field `inputs`")
    inputs = _inputs(found)
    return Job(
        inputs=inputs,
        contexts=[inputs] * len(inputs) if body.late_chunking else body.modality,
        is_openai=is_openai,
        is_base64=body.encoding_format == "base64",
    )


def _inputs(found: Any) -> list[Any]:
    if not isinstance(found, list):
        return [found]
    is_one_of_tokens = bool(found) and all(isinstance(each, int) for each in found)
    return [found] if is_one_of_tokens else found


class _Rerank(msgspec.Struct):
    texts: list[str]


def rerank(request: Request) -> Answer:
    """Give each text a score that depends on it alone."""
    texts = msgspec.json.decode(request.body, type=_Rerank).texts
    scores = [(row_of(text, 1)[0], at) for at, text in enumerate(texts)]
    ranks = [{"index": at, "score": score} for score, at in sorted(scores)[::-1]]
    return Answer(body=msgspec.json.encode(ranks))


def models(traits: Traits) -> Answer:
    """Say what `GET /v1/models` lists."""
    model = {"id": traits.model, "object": "model", "owned_by": "nobody"}
    return Answer(body=msgspec.json.encode({"object": "list", "data": [model]}))


def info(traits: Traits) -> Answer:
    """Say what `GET /info` tells."""
    told = {
        "model_id": traits.model,
        "model_sha": traits.sha or None,
        "model_type": {"embedding": {"pooling": "mean"}},
        "max_concurrent_requests": traits.permits,
        "max_input_length": 512,
        "max_client_batch_size": traits.max_batch,
        "version": "1.9.3",
    }
    return Answer(body=msgspec.json.encode(told))
