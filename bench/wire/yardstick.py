"""
What one would write today: a batching proxy on aiohttp, small and honest.

It collects as abproxy does: a batch leaves at once while a slot is free,
otherwise when one becomes free, and takes up to 32 inputs.  JSON is read and
written by orjson, the fastest there is.  It has nothing else: no limits, no
retries, no metrics, no streaming; what it leaves out costs it nothing.

    python -m bench.wire.yardstick --port 8081 --upstream http://127.0.0.1:8080
"""

import argparse
import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import ClientError, ClientSession, TCPConnector, web

MOST_INPUTS = 32
SLOTS = 2

JSON = {"Content-Type": "application/json"}


@dataclass
class Call:
    """One client's inputs, and the promise of its rows."""

    inputs: list[Any]
    answer: "asyncio.Future[list[Any]]"


class Lane:
    """Calls that may share a batch: same route, same options."""

    def __init__(self, send: Callable[[list[Any]], Any]) -> None:
        self._send = send
        self._waiting: deque[Call] = deque()
        self._on_their_way: set[asyncio.Task[None]] = set()

    async def rows_of(self, inputs: list[Any]) -> list[Any]:
        """Let *inputs* travel with others; their rows."""
        call = Call(inputs, asyncio.get_running_loop().create_future())
        self._waiting.append(call)
        self._depart()
        return await call.answer

    def _depart(self, *_: object) -> None:
        while self._waiting and len(self._on_their_way) < SLOTS:
            task = asyncio.create_task(self._travel(self._fill()))
            self._on_their_way.add(task)
            task.add_done_callback(self._arrived)

    def _arrived(self, task: "asyncio.Task[None]") -> None:
        self._on_their_way.discard(task)
        self._depart()

    def _fill(self) -> list[Call]:
        batch = [self._waiting.popleft()]
        room = MOST_INPUTS - len(batch[0].inputs)
        while self._waiting and len(self._waiting[0].inputs) <= room:
            batch.append(self._waiting.popleft())
            room -= len(batch[-1].inputs)
        return batch

    async def _travel(self, batch: list[Call]) -> None:
        try:
            rows = await self._send([each for call in batch for each in call.inputs])
        except (ClientError, ValueError) as error:
            for call in batch:
                _settle(
                    call.answer.set_exception, call, web.HTTPBadGateway(text=str(error))
                )
            return
        at = 0
        for call in batch:
            _settle(call.answer.set_result, call, rows[at : at + len(call.inputs)])
            at += len(call.inputs)


def _settle(how: Callable[[Any], None], call: Call, what: Any) -> None:
    if not call.answer.done():  # its client may have gone
        how(what)


class Yardstick:
    """The proxy: two routes, and a lane for each kind of call."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._lanes: dict[bytes, Lane] = {}

    def app(self) -> web.Application:
        """Make what aiohttp serves."""
        app = web.Application(client_max_size=32 << 20)
        app.router.add_post("/embed", self._embed)
        app.router.add_post("/v1/embeddings", self._openai)
        app.router.add_get("/health", self._health)
        app.cleanup_ctx.append(self._connected)
        return app

    async def _connected(self, _: web.Application) -> Any:
        connector = TCPConnector(limit=0)
        async with ClientSession(self._upstream, connector=connector) as self._session:
            yield

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response()

    async def _embed(self, request: web.Request) -> web.Response:
        question = orjson.loads(await request.read())
        inputs = question.pop("inputs")
        inputs = inputs if isinstance(inputs, list) else [inputs]

        async def send(all_inputs: list[Any]) -> Any:
            return await self._ask("/embed", {"inputs": all_inputs, **question})

        rows = await self._lane("/embed", question, send).rows_of(inputs)
        return web.Response(body=orjson.dumps(rows), headers=JSON)

    async def _openai(self, request: web.Request) -> web.Response:
        question = orjson.loads(await request.read())
        inputs = question.pop("input")
        inputs = inputs if isinstance(inputs, list) else [inputs]

        async def send(all_inputs: list[Any]) -> list[Any]:
            told = await self._ask("/v1/embeddings", {"input": all_inputs, **question})
            return _with_tokens(told, all_inputs)

        rows = await self._lane("/v1/embeddings", question, send).rows_of(inputs)
        return web.Response(body=orjson.dumps(_openai_answer(rows)), headers=JSON)

    def _lane(
        self, path: str, options: dict[str, Any], send: Callable[..., Any]
    ) -> Lane:
        key = path.encode() + orjson.dumps(options, option=orjson.OPT_SORT_KEYS)
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane(send)
        return lane

    async def _ask(self, path: str, question: dict[str, Any]) -> Any:
        body = orjson.dumps(question)
        async with self._session.post(path, data=body, headers=JSON) as response:
            response.raise_for_status()
            return orjson.loads(await response.read())


def _with_tokens(told: dict[str, Any], inputs: list[Any]) -> list[Any]:
    """Give each row its tokens, in proportion to length, and the model's name."""
    lengths = [len(orjson.dumps(each)) for each in inputs]
    share = told["usage"]["prompt_tokens"] / sum(lengths)
    tokens = [round(share * length) for length in lengths]
    rows = [each["embedding"] for each in told["data"]]
    return [(row, own, told["model"]) for row, own in zip(rows, tokens, strict=True)]


def _openai_answer(rows: list[Any]) -> dict[str, Any]:
    tokens = sum(own for _, own, _ in rows)
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "embedding": row, "index": at}
            for at, (row, _, _) in enumerate(rows)
        ],
        "model": rows[0][2],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m bench.wire.yardstick")
    parser.add_argument("--port", type=int, default=8081)
    parser.add_argument("--upstream", default="http://127.0.0.1:8080")
    options = parser.parse_args()
    app = Yardstick(options.upstream).app()
    web.run_app(app, host="127.0.0.1", port=options.port, access_log=None, print=None)


if __name__ == "__main__":
    main()
