"""
What people write: FastAPI and a model, one request at a time on the card.

A plain `def`, as FastAPI advises for what blocks, and a lock around the model.

    python -m bench.gpu.naive --shape minilm --port 8080
"""

from threading import Lock

import orjson
import uvicorn
from fastapi import FastAPI, Response
from pydantic import BaseModel

from bench.gpu.model import Model
from bench.gpu.serving import prepare

__all__ = ["make_app"]


class Question(BaseModel):
    """What a client sends."""

    inputs: str | list[str]


def make_app(model: Model) -> FastAPI:
    """Make what uvicorn serves."""
    app = FastAPI()
    turn = Lock()

    @app.get("/health")
    async def health() -> None:
        pass

    @app.post("/embed")
    def embed(question: Question) -> Response:
        inputs = question.inputs
        with turn:
            rows = model.encode([inputs] if isinstance(inputs, str) else inputs)
        body = orjson.dumps(rows, option=orjson.OPT_SERIALIZE_NUMPY)
        return Response(body, media_type="application/json")

    return app


def main() -> None:
    """Serve until SIGTERM."""
    served = prepare("naive")
    app = make_app(served.model)
    uvicorn.run(app, port=served.port, access_log=False, log_level="warning")


if __name__ == "__main__":
    main()
