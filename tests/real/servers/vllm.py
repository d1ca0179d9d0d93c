"""vLLM's build for CPUs."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from real import running
from real.cases import openai
from real.running import free_port, model_folder, program
from real.serving import Server

PLACE = "vllm"
ENVIRONMENT = {"VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}


@contextmanager
def serve(folder: Path, port: int | None = None) -> Iterator[str]:
    """Run it as a server of embeddings, without compiling."""
    port = port or free_port()
    named = _named(folder / "named")
    command = [
        *(program(PLACE, "vllm"), "serve", str(model_folder(folder))),
        *("--served-model-name", "minilm", "--runner", "pooling"),
        *("--enforce-eager", "--dtype", "float32"),
        *("--host", "127.0.0.1", "--port", str(port)),
    ]
    url = f"http://127.0.0.1:{port}"
    with running.running(
        folder,
        command,
        url,
        ready="/health",
        environment={**ENVIRONMENT, "PYTHONPATH": str(named)},
    ) as running_at:
        yield running_at


def versions() -> Mapping[str, str]:
    """Return the versions of vLLM and what computes."""
    return running.versions(PLACE, "vllm-cpu", "torch", "transformers")


def _named(folder: Path) -> Path:
    # The package of the index is called vllm-cpu, but the program asks for the
    # version of vllm, and looks there for the word cpu.
    version = running.versions(PLACE, "vllm-cpu")["vllm-cpu"]
    described = folder / f"vllm-{version}+cpu.dist-info"
    described.mkdir(parents=True)
    text = f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n"
    (described / "METADATA").write_text(text, encoding="utf-8")
    return folder


SERVER = Server(
    name="vLLM",
    place=PLACE,
    what="`vllm serve --runner pooling`, its build for CPUs",
    serve=serve,
    dialects=(openai("minilm"),),
    versions=versions,
    elsewhere=("/v1/models", "/health", "/version"),
    openai_base="/v1",
)
