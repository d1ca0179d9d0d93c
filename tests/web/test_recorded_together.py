"""
Each recorded request, in a batch with others, comes back as if it were alone.

The upstream knows the row of every recorded input and refuses a request that
holds a bad one, as TEI does.  All requests that may share a lane are in flight
at the same moment, in every rotation, so that good and bad meet in every
position.
"""

from collections import defaultdict
from itertools import chain
from typing import Any

import msgspec
import pytest
from twisted.web.server import Request

from abproxy.dialects.call import Dialect, ParsedBody
from abproxy.dialects.parse import read_elements
from abproxy.dialects.routes import dialect_of
from support.proxy import in_memory_proxy
from support.recorded import (
    OF_THE_BATCH,
    Exchange,
    ReplayingUpstream,
    answer,
    exchanges,
)

TASKS = {
    "embed": "embedding",
    "limited": "embedding",
    "classifier": "classifier",
    "reranker": "reranker",
    "splade": "splade",
}
TOO_BUSY = 429
"""What TEI was busy with when it said so cannot be asked for again."""

OURS = {"connection", "content-length", "date", "transfer-encoding"}


def _dialect(exchange: Exchange) -> Dialect | None:
    if exchange.method != "POST":
        return None
    return dialect_of(exchange.path.encode(), TASKS[exchange.server])


def _parsed(exchange: Exchange) -> ParsedBody | None:
    dialect = _dialect(exchange)
    return dialect.read(exchange.body) if dialect else None


def _lanes() -> list[list[Exchange]]:
    """Gather the exchanges that may share a batch."""
    lanes: dict[Any, list[Exchange]] = defaultdict(list)
    for exchange in exchanges():
        parsed = _parsed(exchange)
        if parsed is None or exchange.status == TOO_BUSY:
            continue
        if len(parsed.items.raw) > 32:
            continue
        told = {name.lower(): value for name, value in exchange.headers}
        if "json" not in told.get("content-type", "").lower():
            continue
        dialect = _dialect(exchange)
        lane = (exchange.server, dialect, parsed.options, told.get("authorization"))
        lanes[lane].append(exchange)
    return [lane for lane in lanes.values() if len(lane) > 1]


def _rows_in(body: bytes) -> list[bytes]:
    """Find the rows in an answer of any dialect."""
    if body.startswith(b"["):
        return read_elements(body)
    return read_elements(bytes(msgspec.json.decode(body, type=_Data).data))


class _Data(msgspec.Struct):
    data: msgspec.Raw


class BatchingTEI(ReplayingUpstream):
    """Knows every recorded input, and answers any mixture of them."""

    def __init__(self, lane: list[Exchange]) -> None:
        super().__init__(lane)
        self.lane = lane
        self.sizes: list[int] = []
        self.rows: dict[bytes, bytes] = {}
        self.bad: set[bytes] = set()
        for exchange in lane:
            self._learn(exchange)

    def _learn(self, exchange: Exchange) -> None:
        dialect, parsed = _dialect(exchange), _parsed(exchange)
        assert dialect is not None
        assert parsed is not None
        items = parsed.items
        if exchange.status != 200:
            self.bad.update(items.raw)
        elif items.is_list:
            [part] = dialect.split(exchange.reply_body, [items.lengths])
            rows = _rows_in(dialect.write([part], items))
            self.rows.update(zip(items.raw, rows, strict=True))
            self.frame = part.frame
        else:
            self.rows[items.raw[0]] = exchange.reply_body

    def render(self, request: Request) -> bytes:
        """Answer as recorded if it was, else from what is known."""
        body = request.content.read()
        request.content.seek(0)
        if any(exchange.body == body for exchange in self.lane):
            return super().render(request)
        dialect = _dialect(self.lane[0])
        assert dialect is not None
        parsed = dialect.read(body)
        assert parsed is not None
        items = parsed.items.raw
        self.sizes.append(len(items))
        if self.bad.intersection(items):
            bad = next(exchange for exchange in self.lane if exchange.status != 200)
            return answer(request, bad)
        good = next(exchange for exchange in self.lane if exchange.status == 200)
        answer(request, good)
        request.responseHeaders.removeHeader(b"Content-Length")
        if not good.reply_body.startswith(b"{"):
            return b"[%b]" % b",".join(self.rows[item] for item in items)
        members = msgspec.json.decode(good.reply_body, type=dict[str, msgspec.Raw])
        spelled = [_respell(self.rows[item], at) for at, item in enumerate(items)]
        members["data"] = msgspec.Raw(b"[%b]" % b",".join(spelled))
        total = sum(parsed.items.lengths)
        usage = {"prompt_tokens": total, "total_tokens": total}
        members["usage"] = msgspec.Raw(msgspec.json.encode(usage))
        return msgspec.json.encode(members)


def _respell(datum: bytes, at: int) -> bytes:
    members = msgspec.json.decode(datum, type=dict[str, msgspec.Raw])
    members["index"] = msgspec.Raw(b"%d" % at)
    return msgspec.json.encode(members)


def _significant(headers: Any) -> set[tuple[str, str]]:
    ignored = OURS | OF_THE_BATCH
    return {
        (name.lower(), value) for name, value in headers if name.lower() not in ignored
    }


def _without_usage(body: bytes) -> Any:
    if not body.startswith(b'{"object"'):
        return body
    members = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    members.pop("usage")
    return {name: bytes(raw) for name, raw in members.items()}


LANES = _lanes()
CASES = list(
    chain.from_iterable([(lane, turn) for turn in range(len(lane))] for lane in LANES)
)


@pytest.mark.parametrize("is_fast", [True, False], ids=["fast", "klein"])
@pytest.mark.parametrize(
    ("lane", "turn"),
    CASES,
    ids=[f"{lane[0].server}{lane[0].path}-{turn}" for lane, turn in CASES],
)
def test_together_each_request_is_answered_as_if_alone(
    lane: list[Exchange], turn: int, *, is_fast: bool
) -> None:
    """Good and bad requests of one lane, in every rotation, share batches."""
    upstream = BatchingTEI(lane)
    proxy = in_memory_proxy(
        upstream,
        task=TASKS[lane[0].server],
        max_batch_inputs=200,
        max_wait_ms=1000,
        is_fast=is_fast,
    )
    asked = [*lane[turn:], *lane[:turn]]
    clients = [proxy.connect() for _ in asked]

    for client, exchange in zip(clients, asked, strict=True):
        told = [h for h in exchange.headers if h[0].lower() not in {"host", *OURS}]
        client.ask(exchange.method, exchange.path, exchange.body, *told)
    proxy.clock.advance(1)
    for _ in range(12):
        proxy.flush()
        proxy.clock.advance(0.5)

    assert max(upstream.sizes) > 1
    for client, exchange in zip(clients, asked, strict=True):
        [got] = client.answers()
        assert got.status == exchange.status
        assert _without_usage(got.body) == _without_usage(exchange.reply_body)
        assert _significant(got.headers) == _significant(exchange.reply_headers)
