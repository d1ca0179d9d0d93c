"""The server as a process of its own, as an operator runs it."""

import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run() -> Iterator[Callable[..., Any]]:
    """Give a function that starts the server; none is left behind."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*options: str, **how: Any) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "twisted", "abproxy-model", "--model=static"]
        process = subprocess.Popen(  # noqa: S603
            [*command, *options],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **how,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with process:
            process.kill()


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    """Give a socket that listens."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        yield found


def health(listening: socket.socket) -> int:
    """Ask for its health; the request waits until it is served."""
    port = listening.getsockname()[1]
    with urlopen(f"http://127.0.0.1:{port}/health", timeout=30) as response:
        return int(response.status)


def test_a_terminated_server_exits_with_success(
    run: Callable[..., Any], listening: socket.socket
) -> None:
    """SIGTERM is the ordinary end."""
    descriptor = listening.fileno()
    process = run(f"--listen-fd={descriptor}", pass_fds=[descriptor])
    assert health(listening) == 200

    process.send_signal(signal.SIGTERM)

    assert process.wait(timeout=10) == 0


def test_a_child_ends_when_its_parent_is_gone(
    run: Callable[..., Any], listening: socket.socket
) -> None:
    """The end of standard input is the end of a child, and Ctrl-C is not."""
    descriptor = listening.fileno()
    process = run(
        f"--listen-fd={descriptor}", "--exit-with-stdin", pass_fds=[descriptor]
    )
    assert health(listening) == 200

    process.send_signal(signal.SIGINT)
    assert health(listening) == 200
    process.stdin.close()

    assert process.wait(timeout=10) == 0


def test_a_port_in_use_is_one_line_and_a_failure(
    run: Callable[..., Any], listening: socket.socket
) -> None:
    """An operator reads one line and no traceback."""
    port = listening.getsockname()[1]

    _, errors = run(f"--port={port}").communicate(timeout=30)

    assert errors.decode() == (
        f"abproxy-model: cannot listen on tcp:{port}:interface=127.0.0.1:backlog=512:"
        " Address already in use\n"
    )


def test_bad_files_for_tls_are_one_line_and_a_failure(
    run: Callable[..., Any], tmp_path: Path
) -> None:
    """As any other endpoint that cannot be."""
    file = tmp_path / "text.pem"
    file.write_text("text")

    process = run(f"--port=ssl:0:privateKey={file}:certKey={file}")
    _, errors = process.communicate(timeout=30)

    [line] = errors.decode().splitlines()
    assert line.startswith("abproxy-model: --port: ")
    assert process.returncode == 1
