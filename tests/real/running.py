"""Programs that run while they are needed: servers, proxies, and what is between."""

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Protocol

from abproxy_model.files import MINILM

ROOT = Path(__file__).parents[2]
PLACES = ROOT / ".venv-real"
MODEL = MINILM.tokenizer_path().parent
"""all-MiniLM-L6-v2, with 384 dimensions."""

READY_S = 600
STOPPED_S = 20

# Nothing is loaded from elsewhere, nothing is told to anybody, and the two
# cores of a small machine are not fought for.
QUIET = {
    "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
    "HOME": os.environ.get("HOME", "/tmp"),  # noqa: S108
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
    "NO_COLOR": "1",
    "OMP_NUM_THREADS": "2",
    "TOKENIZERS_PARALLELISM": "false",
}


_processes: "dict[str, subprocess.Popen[bytes]]" = {}
"""What runs, by its URL."""


def nginx_with(http: str) -> str:
    """Return what Debian's nginx.conf does as far as it concerns us, with *http*."""
    return f"""\
{{user}}
daemon off;
worker_processes 1;
pid {{folder}}/pid;
error_log {{folder}}/error.log;
events {{{{ worker_connections 1024; }}}}
http {{{{
  access_log off;
  client_body_temp_path {{folder}}/body;
  proxy_temp_path {{folder}}/proxy;
  fastcgi_temp_path {{folder}}/fastcgi;
  uwsgi_temp_path {{folder}}/uwsgi;
  scgi_temp_path {{folder}}/scgi;
  {http}
}}}}
"""


class CannotRun(Exception):
    """A program is missing, has ended or is not ready in time."""


class Serve(Protocol):
    """Runs a server in *folder*, on *port* or any that is free, and gives its URL."""

    def __call__(
        self, folder: Path, port: int | None = None
    ) -> AbstractContextManager[str]:
        """Run it until the block is left."""


def program(server: str, name: str) -> str:
    """
    Return the path of a program that was installed for *server*.

    Raises:
        CannotRun: it was not.
    """
    path = PLACES / server / "bin" / name
    if not path.exists():
        raise CannotRun(f"{path} is missing: run make test/real")
    return str(path)


def versions(server: str, *packages: str) -> dict[str, str]:
    """Return the versions of *packages* that were installed for *server*."""
    code = (
        "import sys, importlib.metadata as m\n"
        "for name in sys.argv[1:]: print(m.version(name))"
    )
    command = [program(server, "python"), "-c", code, *packages]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    return dict(zip(packages, ran.stdout.split(), strict=True))


def free_port() -> int:
    """Find a port that nothing listens on."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


def model_folder(folder: Path) -> Path:
    """Lay the model into *folder* as sentence-transformers has it; give its path."""
    target = folder / "minilm"
    target.mkdir(parents=True)
    for each in MODEL.iterdir():
        (target / each.name).symlink_to(each)
    # `modules.json` names it, but a package has no empty folders.
    (target / "2_Normalize").mkdir(exist_ok=True)
    return target


def finish(folder: Path, command: Sequence[str]) -> None:
    """
    Run *command* in *folder* until it ends by itself.

    Raises:
        CannotRun: it failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ran = subprocess.run(  # noqa: S603
        command, cwd=folder, env=QUIET, capture_output=True, text=True, check=False
    )
    if ran.returncode:
        raise CannotRun(ran.stdout + ran.stderr)


@contextmanager
def running(
    folder: Path,
    command: Sequence[str],
    url: str,
    *,
    ready: str = "/",
    environment: Mapping[str, str] | None = None,
) -> Iterator[str]:
    """
    Run *command* in *folder* until the block is left; give *url*.

    Args:
        folder: where it runs and writes `log`.
        command: the program and its arguments.
        url: where it will answer.
        ready: a path below; any answer under 500 means that it is ready.
        environment: what it finds in its environment besides `QUIET`.

    Raises:
        CannotRun: it has ended or is not ready in time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603
            command,
            cwd=folder,
            env={**QUIET, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    _processes[url] = process
    try:
        _wait_until_ready(process, f"{url}{ready}", log)
        yield url
    finally:
        del _processes[url]
        _stop(process)


def kill(url: str) -> None:
    """Kill what answers at *url*, and all that it has started, with SIGKILL."""
    process = _processes[url]
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _wait_until_ready(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    give_up_at = time.monotonic() + READY_S
    while not _answers(url):
        if process.poll() is not None:
            raise CannotRun(f"ended: {log.read_text(errors='replace')[-2000:]}")
        if time.monotonic() > give_up_at:
            raise CannotRun(f"not ready: {log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.2)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):  # noqa: S310
            return True
    except urllib.error.HTTPError as error:
        return error.code < 500
    except OSError:
        return False


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(STOPPED_S)
    except subprocess.TimeoutExpired:
        pass
    finally:
        # Workers that it has started may still be there.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
