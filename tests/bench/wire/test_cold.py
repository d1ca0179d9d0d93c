"""A lone call after a pause is measured as it is felt."""

import os
import shutil
import socket
import time
from collections.abc import Callable
from itertools import pairwise
from threading import Thread

import pytest

from bench.wire import cold
from bench.wire.bench import Bench
from bench.wire.contestants import NAMES, Ground
from bench.wire.errors import CannotMeasure

CALLED = """\
1795814644.523000 recvfrom(11, "POST /em"..., 65536, 0, NULL, NULL) = 165 <0.000005>
1795814644.523305 sendto(12, "POST /em"..., 171, 0, NULL, 0) = 171 <0.000040>
1795814644.528500 recvfrom(12, "HTTP/1.1"..., 65536, 0, NULL, NULL) = 9903 <0.000010>
1795814644.528710 sendto(11, "HTTP/1.1"..., 9903, 0, NULL, 0) = 9903 <0.000044>
"""
IN_PIECES = """\
1795814644.523000 recvfrom(11, "POST /em"..., 65536, 0, NULL, NULL) = 100 <0.000005>
1795814644.524000 recvfrom(11, "\\"], \\"trun"..., 65536, 0, NULL, NULL) = 65 <0.000005>
1795814644.524105 sendto(12, "POST /em"..., 171, 0, NULL, 0) = 100 <0.000040>
1795814644.524205 sendto(12, "\\"], \\"trun"..., 71, 0, NULL, 0) = 71 <0.000040>
1795814644.528500 recvfrom(12, "HTTP/1.1"..., 65536, 0, NULL, NULL) = 9903 <0.000010>
1795814644.528600 recvfrom(12, "0.1,0.2,"..., 65536, 0, NULL, NULL) = 903 <0.000010>
1795814644.528660 sendto(11, "HTTP/1.1"..., 9903, 0, NULL, 0) = 9903 <0.000044>
"""
NO_CALL = """\
1795814644.523000 recvfrom(11, "GET /hea"..., 65536, 0, NULL, NULL) = 100 <0.000005>
1795814644.523100 sendto(11, "HTTP/1.1"..., 99, 0, NULL, 0) = 99 <0.000040>
1795814644.523200 recvfrom(11, 0x7f2, 65536, 0, NULL, NULL) = -1 EAGAIN (x) <0.000005>
1795814644.523300 recvfrom(11, "", 65536, 0, NULL, NULL) = 0 <0.000005>
1795814644.523400 recvfrom(12, "HTTP/1.1"..., 65536, 0, NULL, NULL) = 50 <0.000010>
1795814644.523500 sendto(12, "GET /inf"..., 50, 0, NULL, 0) = 50 <0.000010>
1795814644.523600 recvfrom(11, "POST /em"...,  <detached ...>
"""


def told(seen: str) -> tuple[list[float], list[float]]:
    """Read whole microseconds."""
    own = cold.read_own_time(seen)
    return [round(us) for us in own.before_us], [round(us) for us in own.after_us]


def test_the_time_between_reading_and_writing_is_ours() -> None:
    """Before the upstream has the call, and after it has answered."""
    assert told(CALLED) == ([300], [200])
    assert told(CALLED * 3) == ([300] * 3, [200] * 3)


def test_what_comes_in_pieces_is_read_when_the_last_one_is() -> None:
    """And it is written when the first one is."""
    assert told(IN_PIECES) == ([100], [50])


def test_what_is_no_call_is_left_out() -> None:
    """Whoever asks how we are, and what we ask the upstream."""
    assert told(NO_CALL) == ([], [])
    assert told(CALLED + NO_CALL + CALLED) == ([300] * 2, [200] * 2)


def serving(answer: bytes) -> tuple[str, Callable[[], list[float]]]:
    """Answer one connection; tell where, and afterwards when requests came."""
    listener = socket.create_server(("127.0.0.1", 0))
    came_at: list[float] = []

    def serve() -> None:
        with listener, listener.accept()[0] as connection:
            while connection.recv(1 << 16):
                came_at.append(time.perf_counter())
                connection.sendall(answer)

    thread = Thread(target=serve)
    thread.start()

    def end() -> list[float]:
        thread.join()
        return came_at

    return f"http://127.0.0.1:{listener.getsockname()[1]}", end


def test_a_client_pauses_before_each_call() -> None:
    """On the cores that it was given, and then it may run everywhere again."""
    url, end = serving(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]")
    cores = os.sched_getaffinity(0)

    seen = cold.pausing([min(cores)])(url, [b"x"], 1, 1)

    came_at = end()
    pauses_s = [b - a for a, b in pairwise(came_at)]
    assert seen.calls == len(came_at)
    assert seen.errors == ""
    # A pause counts from the answer, which came after the request.
    assert min(pauses_s) >= cold.PAUSE_MS / 1000
    assert seen.p50_ms > 0
    assert os.sched_getaffinity(0) == cores


def test_a_bad_answer_is_an_error() -> None:
    """A run with any is no run."""
    url, end = serving(b"HTTP/1.1 429 no\r\ncontent-length: 0\r\n\r\n")

    seen = cold.pausing([*os.sched_getaffinity(0)])(url, [b"x"], 1, 1)

    assert seen.errors == f"status 429 {len(end())}"


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_no_answer_is_told(answer: bytes) -> None:
    """And so is one of which nobody knows where it ends."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listener, listener.accept()[0] as connection:
            connection.recv(1 << 16)
            connection.sendall(answer)

    thread = Thread(target=serve)
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    load = cold.pausing([*os.sched_getaffinity(0)])

    with pytest.raises(CannotMeasure, match="no answer with a length"):
        load(url, [b"x"], 1, 1)
    thread.join()


def test_nobody_there_is_told() -> None:
    """Not as a traceback."""
    load = cold.pausing([*os.sched_getaffinity(0)])

    with pytest.raises(CannotMeasure, match="Refused"):
        load("http://127.0.0.1:1", [b"x"], 1, 1)


def test_only_one_client_is_alone() -> None:
    """More would share batches."""
    with pytest.raises(CannotMeasure, match="only one"):
        cold.pausing([0])("http://127.0.0.1:1", [b"x"], 2, 1)


@pytest.fixture
def bench(ground: Ground) -> Bench:
    """Measure as little as can be measured."""
    pytest.importorskip("aiohttp")
    load = cold.pausing(ground.cores.load)
    return Bench(ground=ground, load=load, workloads=(), rounds=1, seconds=1)


def test_all_contestants_are_measured(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where nobody can say where the time goes."""
    monkeypatch.setattr(shutil, "which", _without_strace(shutil.which))

    found = cold.cold(bench)

    assert found["contestants"].keys() == {*NAMES}
    for figures in found["contestants"].values():
        [p50_ms] = figures["p50_ms"]
        assert p50_ms >= found["upstream_ms"] == cold.UPSTREAM_MS
    assert "no strace" in found["own"]["skipped"]


def _without_strace(
    which: Callable[[str], str | None],
) -> Callable[[str], str | None]:
    return lambda name: None if name == "strace" else which(name)


@pytest.mark.skipif(shutil.which("strace") is None, reason="no strace")
def test_our_own_time_is_part_of_the_whole(bench: Bench) -> None:
    """Each call has some before it is sent on, and some after its answer."""
    ground = bench.ground
    with (
        ground.upstream(cold.COLD.dimensions, cold.UPSTREAM_MS) as upstream,
        ground.abproxy(upstream.url) as proxy,
    ):
        own = cold._own_time(bench, proxy, bench.load)

    if "skipped" in own:
        pytest.skip(own["skipped"])
    assert own["calls"] > 0
    assert own["before_us"] > 0
    assert own["after_us"] > 0
