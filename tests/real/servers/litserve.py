"""Servers written with LitServe: its own OpenAI route and refusals, our model."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from real import running
from real.cases import openai
from real.running import MODEL, ROOT, free_port, program
from real.serving import Server

PLACE = "litserve"


@contextmanager
def serve(
    folder: Path, port: int | None = None, *, max_batch_size: int
) -> Iterator[str]:
    """Run one worker."""
    port = port or free_port()
    script = str(ROOT / "tests/real/handlers/litserve_server.py")
    command = [program(PLACE, "python"), script, str(port), str(max_batch_size)]
    url = f"http://127.0.0.1:{port}"
    environment = {"PYTHONPATH": str(ROOT), "MODEL": str(MODEL)}
    with running.running(
        folder, command, url, ready="/health", environment=environment
    ) as running_at:
        yield running_at


def versions() -> Mapping[str, str]:
    """Return the versions of LitServe and what it stands on."""
    return running.versions(PLACE, "litserve", "fastapi", "uvicorn")


SERVER = Server(
    name="LitServe",
    place=PLACE,
    what="a server written with it and its `OpenAIEmbeddingSpec`",
    serve=partial(serve, max_batch_size=1),
    dialects=(openai("minilm"),),
    versions=versions,
    elsewhere=("/health", "/info"),
    openai_base="/v1",
)
BATCHING = Server(
    name="LitServe, batching",
    place=PLACE,
    what="the same with `max_batch_size=4`, which takes one text in a request",
    serve=partial(serve, max_batch_size=4),
    dialects=(openai("minilm", most_texts=1),),
    versions=versions,
    openai_base="/v1",
)
