"""
A server that batches by itself, as a good one written in Python does.

While a step is on the card calls wait, and all of them are in the next one, up
to 512 texts.  JSON is read and written by orjson, next to the step.

    python -m bench.gpu.batcher --shape minilm --port 8080
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import orjson
from aiohttp import web
from attrs import define, field, frozen

from bench.gpu.model import Model
from bench.gpu.serving import prepare

__all__ = ["Batcher", "make_app"]

MOST_TEXTS = 512
"""In a step."""

MOST_TEXTS_OF_A_CALL = 256
MOST_CALLS = 4096
JSON = {"Content-Type": "application/json"}


@frozen
class Call:
    """A client's texts, and the promise of their rows."""

    texts: Sequence[str]
    rows: "asyncio.Future[Any]"


@define
class Batcher:
    """Calls that wait for the next step."""

    _model: Model
    _waiting: deque[Call] = field(factory=deque)
    _come: asyncio.Event = field(factory=asyncio.Event)

    async def rows_of(self, texts: Sequence[str]) -> Any:
        """Wait for a step with *texts* in it; their rows."""
        call = Call(texts, asyncio.get_running_loop().create_future())
        self._waiting.append(call)
        self._come.set()
        return await call.rows

    async def work(self) -> None:
        """Take one step after the other, for ever."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1) as card:
            while True:
                await self._come.wait()
                calls = self._fill()
                texts = [text for call in calls for text in call.texts]
                rows = await loop.run_in_executor(card, self._model.encode, texts)
                _hand_out(calls, rows)

    def _fill(self) -> list[Call]:
        calls, room = [], MOST_TEXTS
        while self._waiting and len(self._waiting[0].texts) <= room:
            calls.append(self._waiting.popleft())
            room -= len(calls[-1].texts)
        if not self._waiting:
            self._come.clear()
        return calls


def _hand_out(calls: Sequence[Call], rows: Any) -> None:
    at = 0
    for call in calls:
        if not call.rows.done():  # its client may have gone
            call.rows.set_result(rows[at : at + len(call.texts)])
        at += len(call.texts)


def make_app(model: Model, shape: str) -> web.Application:
    """Make what aiohttp serves: three routes of text-embeddings-inference."""
    batcher = Batcher(model)
    about = {
        "model_id": shape,
        "model_type": {"embedding": {"pooling": "mean"}},
        "max_concurrent_requests": MOST_CALLS,
        "max_client_batch_size": MOST_TEXTS_OF_A_CALL,
        "max_input_length": 512,
        "version": "1.9.3",
    }

    async def work(_: web.Application) -> Any:
        task = asyncio.create_task(batcher.work())
        yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    async def embed(request: web.Request) -> web.Response:
        inputs = orjson.loads(await request.read())["inputs"]
        texts = [inputs] if isinstance(inputs, str) else inputs
        if len(texts) > MOST_TEXTS_OF_A_CALL:
            return _too_many(len(texts))
        rows = await batcher.rows_of(texts)
        body = orjson.dumps(rows, option=orjson.OPT_SERIALIZE_NUMPY)
        return web.Response(body=body, headers=JSON)

    async def info(_: web.Request) -> web.Response:
        return web.Response(body=orjson.dumps(about), headers=JSON)

    async def health(_: web.Request) -> web.Response:
        return web.Response()

    app = web.Application(client_max_size=32 << 20)
    app.cleanup_ctx.append(work)
    app.router.add_post("/embed", embed)
    app.router.add_get("/info", info)
    app.router.add_get("/health", health)
    return app


def _too_many(count: int) -> web.Response:
    error = f"batch size {count} > maximum allowed batch size {MOST_TEXTS_OF_A_CALL}"
    body = orjson.dumps({"error": error, "error_type": "Validation"})
    return web.Response(status=422, body=body, headers=JSON)


def _use_uvloop() -> None:
    with suppress(ImportError):
        import uvloop  # noqa: PLC0415

        uvloop.install()


def main() -> None:
    """Serve until SIGTERM."""
    served = prepare("batcher")
    _use_uvloop()
    app = make_app(served.model, served.shape)
    where: dict[str, Any] = {"host": "127.0.0.1", "port": served.port, "backlog": 4096}
    web.run_app(app, **where, access_log=None, print=None)


if __name__ == "__main__":
    main()
