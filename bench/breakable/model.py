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
from bench.breakable.rows import spell, spell_base64
from bench.breakable.traits import Traits

__all__ = ["Job", "info", "read_job"]

OPENAI = frozenset({b"/v1/embeddings", b"/embeddings"})
EMBED = frozenset({b"/embed", b"/", b"/invocations"})
Rows = list[bytes]


class _Body(msgspec.Struct):
    inputs: Any = msgspec.UNSET
    input: Any = msgspec.UNSET
    encoding_format: str = "float"


@frozen(kw_only=True)
class Job:
    """The inputs of one request that is worth computing."""

    inputs: list[Any]
    is_openai: bool
    is_base64: bool = False

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
        if self.holds(traits.bad_text):
            told = f"Input validation error: `inputs` must not say {traits.bad_text}"
            return self.error(422, told, "Validation")
        return None

    def error(self, status: int, message: str, kind: str) -> Answer:
        """Write an error in the words of the route."""
        return error(status, message, kind, openai=self.is_openai)

    def answer(self, traits: Traits, spoil: Callable[[Rows], Rows]) -> Answer:
        """Compute the rows, let *spoil* have them, and write the answer."""
        write = spell_base64 if self.is_base64 else spell
        rows = spoil([write(each, traits.dimensions) for each in self.inputs])
        if not self.is_openai:
            return Answer(body=b"[%b]" % b",".join(rows))
        data = b",".join(
            b'{"object":"embedding","embedding":%b,"index":%d}' % (row, at)
            for at, row in enumerate(rows)
        )
        tokens = sum(map(len, self.inputs))
        usage = b'{"prompt_tokens":%d,"total_tokens":%d}' % (tokens, tokens)
        frame = b'{"object":"list","data":[%b],"model":"breakable","usage":%b}'
        return Answer(body=frame % (data, usage))


def read_job(request: Request) -> Job | Answer | None:
    """Understand an inference request; None if its path is none of those."""
    is_openai = request.path in OPENAI
    if request.method != b"POST" or not (is_openai or request.path in EMBED):
        return None
    if b"json" not in request.headers.get(b"content-type", b"").lower():
        return Answer(status=415)
    try:
        body = msgspec.json.decode(request.body, type=_Body)
    except (msgspec.DecodeError, UnicodeDecodeError) as wrong:
        status = 422 if isinstance(wrong, msgspec.ValidationError) else 400
        return Answer(status=status, body=str(wrong).encode())
    found = body.input if is_openai else body.inputs
    if found is msgspec.UNSET:
        return Answer(status=422, body=b"missing field `inputs`")
    return Job(
        inputs=_inputs(found),
        is_openai=is_openai,
        is_base64=body.encoding_format == "base64",
    )


def _inputs(found: Any) -> list[Any]:
    if not isinstance(found, list):
        return [found]
    is_one_of_tokens = bool(found) and all(isinstance(each, int) for each in found)
    return [found] if is_one_of_tokens else found


def info(traits: Traits) -> Answer:
    """Say what `GET /info` tells."""
    told = {
        "model_id": "breakable",
        "model_type": {"embedding": {"pooling": "mean"}},
        "max_concurrent_requests": traits.permits,
        "max_input_length": 512,
        "max_client_batch_size": traits.max_batch,
        "version": "1.9.3",
    }
    return Answer(body=msgspec.json.encode(told))
