"""The ways to a server: through abproxy, and what others put before and behind it."""

import os
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from attrs import evolve, frozen

from real.running import CannotRun, Serve, free_port, nginx_with, running

SETTINGS = {"MAX_WAIT_TIME": "100", "MAX_BATCH_SIZE": "8"}
"""Calls are held together, so that they meet."""

MODEL = "minilm"
"""What the servers call their model."""

MODELS = """\
[{model}]
url = "{url}"
default = true

[static]
url = "{beside}"
"""

OF_ABPROXY = frozenset(
    {
        "an unknown model",
        "a model that is a number",
        *("GET /v1/models", "GET /models", "GET /health"),
    }
)
"""Calls that abproxy answers itself where it has several models."""

OF_ONE_SERVER = frozenset({"GET /openapi/metadata.json"})
"""Calls whose answer has the time at which the server was started."""

NGINX = nginx_with(
    """\
client_max_body_size 64m;
  upstream behind {{ server {behind}; keepalive 32; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://behind;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $host;
      proxy_set_header X-Real-IP $remote_addr;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header X-Request-ID $request_id;
      proxy_pass_header Server;
      proxy_read_timeout 120s;
    }}
  }}
"""
)

HAPROXY = """\
global
  maxconn 1000
defaults
  mode http
  timeout connect 5s
  timeout client 120s
  timeout server 120s
  timeout http-keep-alive 5s
frontend here
  bind 127.0.0.1:{port}
  option forwardfor
  http-request set-header X-Request-ID %[uuid()]
  default_backend behind
backend behind
  option httpchk GET /
  http-reuse safe
  server one {behind}
"""


@frozen(kw_only=True)
class Way:
    """A way to a server, open as long as the block that gave it."""

    url: str
    abproxy: str = ""
    """Where abproxy itself answers, if it is on the way."""

    not_asked: frozenset[str] = frozenset()
    """Calls that are rightly answered otherwise on this way."""

    def batches(self) -> dict[str, int]:
        """Count the requests that abproxy made of calls so far, and the calls."""
        if not self.abproxy:
            return {"batches": 0, "batched_calls": 0}
        with urllib.request.urlopen(f"{self.abproxy}/metrics") as answer:  # noqa: S310
            text = answer.read().decode()
        return {
            name: _sum(text, metric)
            for name, metric in {
                "batches": "abproxy_batch_calls_count",
                "batched_calls": "abproxy_batch_calls_sum",
            }.items()
        }


def _sum(text: str, metric: str) -> int:
    found = re.findall(rf"^{metric}(?:{{.*}})? (\S+)$", text, re.MULTILINE)
    return round(sum(map(float, found)))


@contextmanager
def directly(_folder: Path, server: str, _serve: Serve) -> Iterator[Way]:
    """Ask *server* itself: what differs then is not abproxy's doing."""
    yield Way(url=server)


@contextmanager
def abproxy(folder: Path, server: str, _serve: Serve) -> Iterator[Way]:
    """Put abproxy in front of *server*."""
    with proxy(folder, INFERENCE_SERVICE_URL=server) as way:
        yield way


@contextmanager
def two_servers(folder: Path, server: str, serve: Serve) -> Iterator[Way]:
    """Put abproxy in front of *server* and another one like it."""
    with (
        serve(folder / "another") as another,
        proxy(folder, INFERENCE_SERVICE_URL=f"{server},{another}") as way,
    ):
        yield evolve(way, not_asked=OF_ONE_SERVER)


@contextmanager
def two_models(folder: Path, server: str, _serve: Serve) -> Iterator[Way]:
    """Let abproxy have another model besides, and name this one in the path."""
    with _two_models(folder, server) as way:
        yield Way(url=f"{way.url}/models/{MODEL}", abproxy=way.abproxy)


@contextmanager
def two_models_by_name(folder: Path, server: str, _serve: Serve) -> Iterator[Way]:
    """Let abproxy have another model besides, and name this one in the body."""
    with _two_models(folder, server) as way:
        yield Way(url=way.url, abproxy=way.abproxy, not_asked=OF_ABPROXY)


@contextmanager
def _two_models(folder: Path, server: str) -> Iterator[Way]:
    folder.mkdir(parents=True)
    port = free_port()
    command = [_twistd(), "--nodaemon", "--pidfile=", "abproxy-model", "--ip=127.0.0.1"]
    command += [f"--port={port}", "--model=static"]
    beside = f"http://127.0.0.1:{port}"
    file = folder / "models.toml"
    file.write_text(MODELS.format(model=MODEL, url=server, beside=beside))
    with (
        running(folder / "beside", command, beside, ready="/health"),
        proxy(folder, MODELS=str(file)) as way,
    ):
        yield way


@contextmanager
def proxy(folder: Path, **settings: str) -> Iterator[Way]:
    """Run abproxy with these settings, besides those of all ways."""
    port = free_port()
    command = [_twistd(), "--nodaemon", "--pidfile=", "abproxy"]
    environment = {**SETTINGS, "PORT": str(port), **settings}
    url = f"http://127.0.0.1:{port}"
    # Not /-/ready: it asks the server's /health, which a gateway may refuse.
    with running(
        folder, command, url, ready="/-/healthy", environment=environment
    ) as proxied:
        yield Way(url=proxied, abproxy=proxied)


def _twistd() -> str:
    return str(Path(sys.executable).with_name("twistd"))


@contextmanager
def nginx_abproxy(folder: Path, server: str, _serve: Serve) -> Iterator[Way]:
    """Put nginx in front of abproxy."""
    user = f"user root {_group()};" if os.geteuid() == 0 else ""
    with (
        proxy(folder / "abproxy", INFERENCE_SERVICE_URL=server) as way,
        _configured(folder / "nginx", "nginx", NGINX, way.url, user=user) as url,
    ):
        yield Way(url=url, abproxy=way.abproxy)


@contextmanager
def abproxy_haproxy(folder: Path, server: str, _serve: Serve) -> Iterator[Way]:
    """Put HAProxy between abproxy and the server."""
    with (
        _configured(folder / "haproxy", "haproxy", HAPROXY, server) as balancer,
        proxy(folder / "abproxy", INFERENCE_SERVICE_URL=balancer) as way,
    ):
        yield way


Between = Callable[[Path, str, Serve], AbstractContextManager[Way]]
"""Makes a way, with a folder, to a server's URL; it may run another one like it."""

WAYS: Mapping[str, Between] = {
    "directly": directly,
    "abproxy": abproxy,
    "nginx, abproxy": nginx_abproxy,
    "abproxy, HAProxy": abproxy_haproxy,
    "abproxy, two of them": two_servers,
    "abproxy, one of two models, by path": two_models,
    "abproxy, one of two models, by name": two_models_by_name,
}


LONG = "abproxy"
"""The way on which the rounds that take long are asked as well."""


def versions() -> dict[str, str]:
    """Return the versions of nginx and HAProxy."""
    return {
        "nginx": _version("nginx", "-v"),
        "haproxy": _version("haproxy", "-v"),
    }


@contextmanager
def _configured(
    folder: Path, name: str, template: str, behind: str, **more: str
) -> Iterator[str]:
    port = free_port()
    folder.mkdir(parents=True)
    address = behind.removeprefix("http://")
    text = template.format(folder=folder, behind=address, port=port, **more)
    file = folder / "conf"
    file.write_text(text)
    options = (
        ["-e", "error.log", "-p", str(folder), "-c"]
        if name == "nginx"
        else ["-db", "-f"]
    )
    command = [_found(name), *options, str(file)]
    with running(folder, command, f"http://127.0.0.1:{port}") as url:
        yield url


def _found(name: str) -> str:
    path = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if path is None:
        raise CannotRun(f"{name} is not installed")
    return path


def _version(name: str, option: str) -> str:
    ran = subprocess.run(  # noqa: S603
        [_found(name), option], capture_output=True, text=True, check=True
    )
    found = re.search(r"\d+\.\d+\.\d+", ran.stdout + ran.stderr)
    return found[0] if found else "?"


def _group() -> str:
    return "root"
