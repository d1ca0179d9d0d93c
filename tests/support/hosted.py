"""A collector in front of a simulated account at a hosted API."""

from collections.abc import Iterator
from typing import Any

import msgspec
from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from abproxy.batching.account import Rates
from abproxy.batching.admission import Admission
from abproxy.batching.collector import BatchCollector
from abproxy.batching.concurrency import AdaptiveLimit, Budget
from abproxy.batching.part import Caps
from abproxy.batching.refusal import RetryTimeouts
from abproxy.batching.slots import make_slots
from abproxy.dialects.call import Call, LaneKey
from abproxy.dialects.openai import OPENAI
from abproxy.events import Observer
from abproxy.http.messages import Response, UpstreamRequest
from bench.hosted import Account

TOKENS_OF_A_BYTE = 0.25


def openai_call(
    *texts: str, model: str = "small", is_bulk: bool = False, client: bytes = b""
) -> Call:
    """Make a call for /v1/embeddings."""
    body = msgspec.json.encode({"input": list(texts), "model": model})
    parsed = OPENAI.read(body)
    assert parsed is not None
    key = LaneKey(
        dialect=OPENAI,
        path=OPENAI.path,
        headers=(),
        options=parsed.options,
        is_bulk=is_bulk,
    )
    alone = UpstreamRequest(path=OPENAI.path, headers=(), body=body)
    return Call(lane_key=key, items=parsed.items, alone=alone, client=client)


@define(eq=False)
class HostedApi:
    """Answers as the account allows, after some time."""

    clock: Clock
    account: Account
    takes_s: float = 0.2
    states: bool = True
    """Whether its answers say what is left."""

    sent: list[tuple[float, int]] = field(init=False, factory=list)
    """When requests came, and how many inputs they had."""

    bodies: list[Any] = field(init=False, factory=list)

    def send(self, request: UpstreamRequest) -> Deferred[Response]:
        """Take one request."""
        body = msgspec.json.decode(request.body)
        inputs, now = body["input"], self.clock.seconds()
        tokens = sum(max(1, int(len(each) * TOKENS_OF_A_BYTE)) for each in inputs)
        status, lines = self.account.ask(tokens, now)
        self.sent.append((now, len(inputs)))
        self.bodies.append(body)
        answer = _answer(inputs, tokens) if status == 200 else b'{"error":{}}'
        headers = (
            tuple(lines) if self.states else tuple(lines[:1] if status == 429 else ())
        )
        response = Response(status=status, reason=b"", headers=headers, body=answer)
        done: Deferred[Response] = Deferred()
        self.clock.callLater(
            self.takes_s, lambda: done.called or done.callback(response)
        )
        return done


def _answer(inputs: list[str], tokens: int) -> bytes:
    rows = [
        {"object": "embedding", "index": at, "embedding": [len(text)]}
        for at, text in enumerate(inputs)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return msgspec.json.encode(
        {"object": "list", "data": rows, "model": "small", "usage": usage}
    )


@define(eq=False)
class Hosted:
    """A collector in front of a simulated hosted API, and its clock."""

    clock: Clock
    api: HostedApi
    collector: BatchCollector
    refusals: list[BaseException] = field(init=False, factory=list)

    def submit(self, call: Call) -> "Deferred[list[Any]]":
        """Submit one call in a turn of its own."""
        done = self.collector.submit(call)
        self.clock.advance(0)
        return done

    def run(self, seconds: float, step_s: float = 0.1) -> Iterator[float]:
        """Let time pass in small steps."""
        end = self.clock.seconds() + seconds
        while self.clock.seconds() < end:
            yield self.clock.seconds()
            self.clock.advance(step_s)


def hosted(
    account: Account,
    *,
    items: int = 100,
    size: int = 1_900_000,
    rates: Rates | None = None,
    states: bool = True,
    takes_s: float = 0.2,
    observer: Observer | None = None,
    slots: int | None = None,
    overload_s: float = 5.0,
) -> Hosted:
    """Make a collector in front of a simulated account."""
    clock = Clock()
    api = HostedApi(clock, account, takes_s=takes_s, states=states)
    collector = BatchCollector(
        clock=clock,
        send=api.send,
        caps=Caps(calls=100_000, items=items, size=size),
        budget=Budget(
            limit=AdaptiveLimit(clock=clock, ceiling=max(512, 4 * items), batch=items),
            slots=make_slots(slots),
        ),
        admission=Admission(clock=clock, max_items=10_000, max_size=1 << 27),
        max_wait_s=0,
        packs=False,
        rates=rates or Rates(is_hosted=True),
        retry_timeouts=RetryTimeouts(overload_s=overload_s),
        observer=observer or Observer(),
    )
    return Hosted(clock, api, collector)
