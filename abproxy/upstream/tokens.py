"""
The number of tokens of each item, from the upstream's own tokenizer.

Only for the `usage` of a shared response, and only if the operator wants it to be
exact: it is one request more for each batch.
"""

from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise

import msgspec
from attrs import define, field
from twisted.logger import Logger
from twisted.web.http import OK

from abproxy.dialects.call import Items
from abproxy.dialects.tei import TOKENIZE
from abproxy.errors import ProxyError
from abproxy.http.messages import HeaderList, Send, UpstreamRequest
from abproxy.upstream.server_info import ServerInfo

__all__ = ["TokenCounter"]

_decode_tokens = msgspec.json.Decoder(list[list[msgspec.Raw]]).decode
_log = Logger()


@define(kw_only=True, eq=False)
class TokenCounter:
    """Counts tokens with `POST /tokenize`."""

    send: Send = field(repr=False)

    info: Callable[[], ServerInfo] = field(repr=False)
    """What is known of the upstream: it cuts inputs at a length."""

    _works: bool = field(default=True, init=False)
    """Whether the upstream counted when it was asked last."""

    async def count(
        self, parts: Sequence[Items], headers: HeaderList
    ) -> list[list[int]]:
        """
        Count the tokens of each item of each part, asked with *headers*.

        Where that fails, characters stand in for tokens: a caller who waits
        for embeddings is not to fail for want of a figure.
        """
        try:
            counts = await self._count(parts, headers)
        except (ProxyError, msgspec.DecodeError, ValueError) as error:
            self._warn_once(error)
            return [list(part.lengths) for part in parts]
        ends = accumulate((len(part.raw) for part in parts), initial=0)
        return [counts[start:end] for start, end in pairwise(ends)]

    def _warn_once(self, error: Exception) -> None:
        """Warn, but not for each batch of an upstream without /tokenize."""
        if self._works:
            _log.warn(
                "Tokens cannot be counted, so characters are counted instead: {error}",
                error=error,
            )
        self._works = False

    async def _count(self, parts: Sequence[Items], headers: HeaderList) -> list[int]:
        items = [item for part in parts for item in part.raw]
        texts = [item for item in items if item.startswith(b'"')]
        counted = iter(await self._ask(texts, headers) if texts else [])
        most = self.info().max_input_length
        counts = [
            next(counted) if item.startswith(b'"') else item.count(b",") + 1
            for item in items
        ]
        return [min(count, most or count) for count in counts]

    async def _ask(self, texts: Sequence[bytes], headers: HeaderList) -> list[int]:
        request = UpstreamRequest(
            path=TOKENIZE.path,
            headers=(*headers, (b"Content-Type", b"application/json")),
            body=TOKENIZE.batch_body(texts, b""),
        )
        reply = await self.send(request)
        if reply.status != OK:
            raise ValueError(f"/tokenize answers {reply.status}")
        counts = [len(tokens) for tokens in _decode_tokens(reply.body)]
        if len(counts) != len(texts):
            raise ValueError(f"{len(counts)} counts for {len(texts)} texts")
        self._works = True
        return counts
