"""A server written with mosec: its own HTTP, batching and refusals, our model."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from real import running
from real.cases import openai, tei
from real.running import MODEL, ROOT, free_port, program
from real.serving import Server

PLACE = "mosec"


@contextmanager
def serve(folder: Path, port: int | None = None) -> Iterator[str]:
    """Run a worker for each route."""
    port = port or free_port()
    script = str(ROOT / "tests/real/handlers/mosec_server.py")
    command = [
        *(program(PLACE, "python"), script, "--address", "127.0.0.1"),
        *("--port", str(port), "--path", str(folder / "sockets")),
        *("--timeout", "60000"),
    ]
    url = f"http://127.0.0.1:{port}"
    environment = {"PYTHONPATH": str(ROOT), "MODEL": str(MODEL)}
    with running.running(folder, command, url, environment=environment) as running_at:
        yield running_at


def versions() -> Mapping[str, str]:
    """Return the version of mosec."""
    return running.versions(PLACE, "mosec")


SERVER = Server(
    name="mosec",
    place=PLACE,
    what="a server written with it, for both dialects",
    serve=serve,
    dialects=(openai("minilm"), tei("/embed")),
    versions=versions,
    elsewhere=("/openapi/metadata.json",),
    openai_base="/v1",
    hugging_face="/embed",
)
