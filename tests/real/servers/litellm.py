"""LiteLLM's proxy, a gateway, in front of llama.cpp's server or of abproxy."""

import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from real import running
from real.between import Way, proxy
from real.cases import openai
from real.running import Serve, free_port, program
from real.servers import llama_cpp
from real.serving import Server

PLACE = "litellm"
KEY = f"sk-{secrets.token_hex(16)}"
"""The key that clients must show to it: it refuses to start with a known one."""


@contextmanager
def serve(folder: Path, port: int | None = None) -> Iterator[str]:
    """Run it with a key, and with llama.cpp's server behind."""
    with (
        llama_cpp.serve(folder / "llama_cpp") as behind,
        _gateway(folder, behind, port) as url,
    ):
        yield url


@contextmanager
def before_abproxy(folder: Path, _server: str, _serve: Serve) -> Iterator[Way]:
    """Run it in front of abproxy, and that in front of llama.cpp's server."""
    with (
        llama_cpp.serve(folder / "llama_cpp") as behind,
        proxy(folder / "abproxy", INFERENCE_SERVICE_URL=behind) as way,
        _gateway(folder, way.url) as url,
    ):
        yield Way(url=url, abproxy=way.abproxy)


@contextmanager
def _gateway(folder: Path, behind: str, port: int | None = None) -> Iterator[str]:
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    file = folder / "config.yaml"
    # JSON is YAML.
    file.write_text(json.dumps(_config(behind)), encoding="utf-8")
    command = [
        *(program(PLACE, "litellm"), "--config", str(file)),
        *("--host", "127.0.0.1", "--port", str(port)),
    ]
    url = f"http://127.0.0.1:{port}"
    environment = {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        # Or it asks twice more after each 500, which takes seconds.
        "DEFAULT_MAX_RETRIES": "0",
    }
    with running.running(
        folder, command, url, ready="/health/liveliness", environment=environment
    ) as running_at:
        yield running_at


def versions() -> Mapping[str, str]:
    """Return the versions of LiteLLM and of what is behind."""
    return {**running.versions(PLACE, "litellm"), **llama_cpp.versions()}


def _config(behind: str) -> dict[str, object]:
    return {
        "model_list": [
            {
                "model_name": "minilm",
                "litellm_params": {
                    "model": "openai/minilm",
                    "api_base": f"{behind}/v1",
                    "api_key": "none",
                },
            }
        ],
        # By default one input that is refused with 500 shuts out all callers for
        # some seconds, directly too, and nothing could be compared.
        "router_settings": {"disable_cooldowns": True},
        "litellm_settings": {"telemetry": False, "num_retries": 0},
        "general_settings": {"master_key": KEY},
    }


SERVER = Server(
    name="LiteLLM",
    place=PLACE,
    what="`litellm --config`, a gateway, in front of llama.cpp",
    serve=serve,
    dialects=(openai("minilm", header={"Authorization": f"Bearer {KEY}"}),),
    versions=versions,
    elsewhere=("/v1/models", "/health/liveliness"),
    openai_base="/v1",
    key=KEY,
    ways={"LiteLLM, abproxy": before_abproxy},
)
