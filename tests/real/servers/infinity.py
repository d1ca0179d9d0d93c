"""Infinity, with its PyTorch engine on the CPU."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from real import running
from real.cases import openai
from real.running import free_port, model_folder, program
from real.serving import Server

PLACE = "infinity"


@contextmanager
def serve(folder: Path, port: int | None = None) -> Iterator[str]:
    """Run it with its defaults, but for what asks for a card."""
    port = port or free_port()
    command = [
        *(program(PLACE, "infinity_emb"), "v2", "--engine", "torch", "--device", "cpu"),
        *("--model-id", str(model_folder(folder)), "--served-model-name", "minilm"),
        *("--no-bettertransformer", "--host", "127.0.0.1", "--port", str(port)),
    ]
    url = f"http://127.0.0.1:{port}"
    with running.running(folder, command, url, ready="/health") as running_at:
        yield running_at


def versions() -> Mapping[str, str]:
    """Return the versions of Infinity and what computes."""
    return running.versions(PLACE, "infinity-emb", "torch", "transformers")


SERVER = Server(
    name="Infinity",
    place=PLACE,
    what="`infinity_emb v2`, PyTorch on the CPU",
    serve=serve,
    dialects=(openai("minilm", "/embeddings"),),
    versions=versions,
    elsewhere=("/models", "/health"),
    openai_base="",
)
