"""A wrong answer is found, however small the difference."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from bench.wire.checker import check, compare
from bench.wire.errors import CannotMeasure
from bench.wire.processes import Child
from bench.wire.workloads import Workload

WORKLOAD = Workload(name="small", clients=3, dimensions=8)


def _swapped(body: bytes) -> bytes:
    first, second = body[2:-2].split(b"],[")
    return b"[[%b],[%b]]" % (second, first)


def _with_another_digit(body: bytes) -> bytes:
    return body[:-3] + (b"1" if body[-3:-2] != b"1" else b"2") + body[-2:]


def test_the_right_answer_passes() -> None:
    """Exactly what the upstream would have said."""
    compare(WORKLOAD, 7, 200, WORKLOAD.answer(7))


@pytest.mark.parametrize(
    "spoil",
    [
        _swapped,
        _with_another_digit,
        lambda body: body[:-1],
        lambda body: body + b"\n",
        lambda _: WORKLOAD.answer(8),
        lambda _: b"",
    ],
    ids=["swapped", "digit", "short", "long", "another's", "empty"],
)
def test_a_wrong_answer_is_refused(spoil: Callable[[bytes], bytes]) -> None:
    """It says of which call, and where it differs."""
    with pytest.raises(CannotMeasure, match="a wrong answer to call 7"):
        compare(WORKLOAD, 7, 200, spoil(WORKLOAD.answer(7)))


def test_a_bad_status_is_refused() -> None:
    """Even with the right body."""
    with pytest.raises(CannotMeasure, match="status 503"):
        compare(WORKLOAD, 7, 503, WORKLOAD.answer(7))


@contextmanager
def _liar(answered: bytes) -> Iterator[str]:
    """Run a server that says the same to everybody."""

    def serve(connection: socket.socket) -> None:
        # Who has seen enough may hang up in the middle of an answer.
        with connection, suppress(OSError):
            while connection.recv(1 << 16):
                connection.sendall(answered)

    def welcome() -> None:
        for _ in range(WORKLOAD.clients):
            opened, _ = listening.accept()
            threading.Thread(target=serve, args=[opened], daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        welcoming = threading.Thread(target=welcome)
        welcoming.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        welcoming.join()


def test_a_server_that_lies_is_found_out() -> None:
    """All clients of it are looked at."""
    body = WORKLOAD.answer(0)
    answered = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)

    with _liar(answered) as url, pytest.raises(CannotMeasure, match="a wrong answer"):
        check(url, WORKLOAD)


def test_a_server_that_breaks_off_is_found_out() -> None:
    """Half an answer is none."""
    with _liar(b"HTTP/1.1 nonsense\r\n\r\n") as url, pytest.raises(CannotMeasure):
        check(url, WORKLOAD)


def test_the_upstream_passes(direct: Child) -> None:
    """Asked by all clients at once."""
    assert check(direct.url, WORKLOAD) == 300


def test_nobody_at_all_is_said_so() -> None:
    """With the system's words."""
    with pytest.raises(CannotMeasure, match="Connect call failed"):
        check("http://127.0.0.1:1", WORKLOAD)
