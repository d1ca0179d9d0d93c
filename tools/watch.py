"""
Run the proxy, and start it again whenever the code or `.env` has changed.

    python -m tools.watch --embedded

All options are those of `twistd abproxy`.
"""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

__all__ = ["main", "run", "seen"]

LOOK_EVERY_S = 0.5

ROOT = Path(__file__).parent.parent
FOLDERS = ("abproxy", "abproxy_model", "twisted")
SUFFIXES = frozenset({".py", ".html", ".css", ".js", ".json"})


def seen(root: Path, env_file: Path) -> Mapping[Path, int]:
    """Return when each file was changed that the proxy is made of."""
    return {file: file.stat().st_mtime_ns for file in _files(root, env_file)}


def _files(root: Path, env_file: Path) -> Iterator[Path]:
    for folder in FOLDERS:
        for file in (root / folder).rglob("*"):
            if file.suffix in SUFFIXES and file.is_file():
                yield file
    if env_file.is_file():
        yield env_file


def run(command: Sequence[str], root: Path, env_file: Path) -> None:
    """
    Run *command* until it is interrupted, and again after each change.

    If it ends by itself, as after a mistake, the next change starts it again.
    """
    while True:
        files = seen(root, env_file)
        with subprocess.Popen(command) as process:  # noqa: S603
            try:
                while seen(root, env_file) == files:
                    time.sleep(LOOK_EVERY_S)
            finally:
                # SIGINT: no load balancer has to notice.
                if process.poll() is None:
                    process.send_signal(signal.SIGINT)
                process.wait()
        sys.stderr.write("Changed: starting again ...\n")


def main(arguments: Sequence[str]) -> None:
    """Do what the command line says."""
    twistd = Path(sys.executable).with_name("twistd")
    command = [str(twistd), "--nodaemon", "--pidfile=", "abproxy", *arguments]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with suppress(KeyboardInterrupt):
        run(command, ROOT, Path(".env"))


if __name__ == "__main__":
    main(sys.argv[1:])
