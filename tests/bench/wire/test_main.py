"""The command line, and how it ends."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.wire.__main__ import FULL, QUICK, main, parse
from bench.wire.contestants import ROOT, Ground
from bench.wire.errors import CannotMeasure


def test_by_default_everything_is_measured() -> None:
    """All parts on all workloads."""
    options = parse([])

    assert len(options.parts) == 6
    assert options.workloads == [*FULL]


def test_quickly_only_what_the_readme_shows_is() -> None:
    """The speed, and a lone call."""
    options = parse(["--quick"])

    assert options.parts == ["speed", "cold"]
    assert options.workloads == [*QUICK]


def test_one_may_choose() -> None:
    """What, of what, and how often."""
    options = parse(["memory", "speed", "--workload", "base64", "--rounds", "9"])

    assert options.parts == ["memory", "speed"]
    assert [each.name for each in options.workloads] == ["base64"]
    assert options.rounds == 9


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["noise"], "no such part: noise"),
        (["--workload", "heavy"], "invalid choice: 'heavy'"),
        (["--rounds", "0"], "at least 1"),
        (["--seconds", "x"], "invalid"),
    ],
)
def test_a_mistake_is_told(
    arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one line, below the usage."""
    with pytest.raises(SystemExit):
        parse(arguments)

    assert reason in capsys.readouterr().err


def test_help_explains_parts_and_workloads(capsys: pytest.CaptureFixture[str]) -> None:
    """All of them."""
    with pytest.raises(SystemExit):
        parse(["--help"])

    told = capsys.readouterr().out
    assert all(each.name in told for each in FULL)
    assert "with 1,000 idle connections" in told


def test_each_part_is_kept_when_it_is_there(
    ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What fails later does not take it along."""
    assert ground

    def fail(_: object) -> None:
        raise CannotMeasure("no luck")

    parts = {"speed": lambda _: ["figures"], "memory": fail}
    monkeypatch.setattr("bench.wire.__main__.PARTS", parts)
    out = tmp_path / "new" / "out.json"

    with pytest.raises(CannotMeasure, match="no luck"):
        main([f"--out={out}"])
    assert json.loads(out.read_text())["speed"] == ["figures"]


def _members(group: int) -> list[str]:
    """List the processes of a group by their command lines."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if os.getpgid(int(folder.name)) == group:
                found.append((folder / "cmdline").read_text().replace("\0", " "))
        except (OSError, ProcessLookupError):
            continue
    return [each for each in found if each]


@pytest.mark.skipif(shutil.which("wrk") is None, reason="no wrk")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_no_process_is_left(
    ground: Ground, tmp_path: Path, how: signal.Signals
) -> None:
    """Ctrl-C reaches all of them, SIGTERM only the first."""
    pytest.importorskip("aiohttp")
    assert ground
    arguments = ["speed", "--workload=clients-1", "--seconds=20", "--rounds=1"]
    started = subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "bench.wire", *arguments, f"--out={tmp_path}/out.json"],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        while not any("wrk" in each for each in _members(started.pid)):
            assert started.poll() is None
            time.sleep(0.05)
        were_there = _members(started.pid)
        if how == signal.SIGINT:
            os.killpg(started.pid, how)
        else:
            started.send_signal(how)
        _, said = started.communicate(timeout=20)
    finally:
        left = _members(started.pid)
        if left:
            os.killpg(started.pid, signal.SIGKILL)

    assert len(were_there) == 5  # upstream, yardstick, abproxy, wrk and the bench
    assert left == []
    assert started.returncode
    assert "Traceback" not in said
    assert not (tmp_path / "out.json").exists()
