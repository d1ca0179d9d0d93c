"""What wrk prints is understood, and Python can stand in for it."""

import shutil
from pathlib import Path

import pytest

from bench.wire import load
from bench.wire.contestants import Ground
from bench.wire.errors import CannotMeasure
from bench.wire.processes import Child
from bench.wire.workloads import Workload

SAID = """\
Running 2s test @ http://127.0.0.1:8080
  1 threads and 64 connections
  128 requests in 2.00s, 1.00MB read
Requests/sec: 64.00
wire calls=128 took_us=2000000 p50_us=250 p99_us=1500\
 connect=0 read=0 write=0 status=0 timeout=0
"""
WORKLOAD = Workload(name="small", clients=4, dimensions=8)


def test_figures_are_read() -> None:
    """With their units."""
    seen = load.read_wrk(SAID)

    assert seen.calls_per_s == 64
    assert (seen.p50_ms, seen.p99_ms, seen.errors) == (0.25, 1.5, "")


def test_errors_are_told_by_kind() -> None:
    """A run with any is no run."""
    seen = load.read_wrk(SAID.replace("status=0 timeout=0", "status=7 timeout=1"))

    assert seen.errors == "status 7, timeout 1"


def test_no_calls_are_an_error() -> None:
    """A server that answers nothing is not fast."""
    assert load.read_wrk(SAID.replace("calls=128", "calls=0")).errors


def test_no_figures_are_an_error() -> None:
    """It tells what wrk said instead."""
    with pytest.raises(CannotMeasure, match="unable to connect"):
        load.read_wrk("unable to connect to 127.0.0.1:8080 Connection refused\n")


@pytest.mark.skipif(shutil.which("wrk") is None, reason="no wrk")
def test_wrk_puts_the_load_on(ground: Ground, direct: Child, tmp_path: Path) -> None:
    """With requests that were written before."""
    chosen, put = load.choose(ground.cores.load, tmp_path)
    seen = put(direct.url, WORKLOAD.requests(), WORKLOAD.clients, 1)

    assert chosen == "wrk"
    assert seen.calls > 0
    assert seen.errors == ""


@pytest.mark.skipif(shutil.which("wrk") is None, reason="no wrk")
def test_wrk_sees_bad_answers(ground: Ground, direct: Child, tmp_path: Path) -> None:
    """A status of 400 and more counts as an error."""
    _, put = load.choose(ground.cores.load, tmp_path)
    bad = b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n"

    seen = put(direct.url, [bad], 1, 1)
    assert seen.errors.startswith("status ")


def test_without_wrk_python_does(
    monkeypatch: pytest.MonkeyPatch, direct: Child, tmp_path: Path
) -> None:
    """It says so by its name."""
    monkeypatch.setenv("PATH", str(tmp_path))

    chosen, put = load.choose([0], tmp_path)
    seen = put(direct.url, WORKLOAD.requests(), WORKLOAD.clients, 1)

    assert chosen == "Python"
    assert seen.calls > 0
    assert seen.errors == ""
