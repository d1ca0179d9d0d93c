"""`make watch`: the proxy starts again when the code or `.env` has changed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.processes import ROOT
from tools.watch import seen

PATIENCE_S = 30

PROGRAM = "import os, sys, time; print(os.getpid(), flush=True); time.sleep({s})"


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """Make a folder with some code."""
    (tmp_path / "abproxy").mkdir()
    file = tmp_path / "abproxy" / "code.py"
    file.write_text("")
    return file


@contextmanager
def watching(folder: Path, program: str) -> Iterator["subprocess.Popen[str]"]:
    """Watch *folder*, and run *program* over and over."""
    watch = (
        "import sys; from pathlib import Path; from tools.watch import run; "
        "run([sys.executable, '-c', sys.argv[2]], Path(sys.argv[1]), "
        "Path(sys.argv[1], '.env'))"
    )
    with subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", watch, str(folder), program],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(PATIENCE_S)


def started(process: "subprocess.Popen[str]") -> int:
    """Wait until the program is started, and return its number."""
    assert process.stdout is not None
    return int(process.stdout.readline())


def _state(pid: int) -> str:
    try:
        said = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return "X"
    return said.rpartition(")")[2].split()[0]


def has_ended(pid: int) -> bool:
    """Return whether a process ends, sooner or later."""
    give_up_at = time.monotonic() + PATIENCE_S
    while _state(pid) not in "XZ":
        assert time.monotonic() < give_up_at
        time.sleep(0.02)
    return True


@pytest.mark.parametrize("name", ["abproxy/code.py", ".env"])
def test_a_change_starts_the_program_again(code: Path, name: str) -> None:
    """The former one has ended by then."""
    folder = code.parent.parent
    with watching(folder, PROGRAM.format(s=60)) as process:
        first = started(process)
        (folder / name).write_text("SLOTS=3\n")
        second = started(process)

        assert second != first
        assert has_ended(first)


def test_a_program_that_ended_waits_for_the_next_change(code: Path) -> None:
    """As after a mistake in the code: it is not started over and over."""
    with watching(code.parent.parent, PROGRAM.format(s=0)) as process:
        first = started(process)
        assert has_ended(first)
        code.write_text("mended = True\n")

        assert started(process) != first


def test_what_an_interrupt_ends_leaves_nothing_behind(code: Path) -> None:
    """Neither the watch nor what it runs."""
    with watching(code.parent.parent, PROGRAM.format(s=60)) as process:
        pid = started(process)

    assert has_ended(pid)


def test_files_that_are_no_code_are_not_looked_at(code: Path) -> None:
    """Python's own copies change whenever it reads."""
    folder = code.parent.parent
    (code.parent / "code.pyc").write_text("")

    assert set(seen(folder, folder / ".env")) == {code}


def test_make_run_model_heeds_a_port() -> None:
    """Next to whatever has 8080."""
    command = ["make", "--dry-run", "run/model", "port=9123"]
    said = subprocess.run(  # noqa: S603
        command, cwd=ROOT, capture_output=True, text=True, check=True, env=os.environ
    )

    assert "abproxy-model --port=9123" in said.stdout
