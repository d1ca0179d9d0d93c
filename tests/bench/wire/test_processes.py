"""Nothing is left behind, whatever happens."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from bench.wire.contestants import Ground
from bench.wire.cores import Cores, share_out, share_out_for_many
from bench.wire.errors import CannotMeasure
from bench.wire.processes import child, free_port

STUBBORN = """
import http.server, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
class Healthy(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Healthy).serve_forever()
"""


def _is_there(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_a_child_ends_with_its_context(ground: Ground) -> None:
    """As it does after a day's work."""
    with ground.upstream(8) as running:
        was_there = _is_there(running.pid)

    assert was_there
    assert not _is_there(running.pid)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, CannotMeasure])
def test_a_child_ends_if_something_goes_wrong(
    ground: Ground, error: type[BaseException]
) -> None:
    """A mistake, Ctrl-C, or SIGTERM."""
    with pytest.raises(error), ground.upstream(8) as running:
        raise error

    assert not _is_there(running.pid)


def test_a_child_that_will_not_end_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It got its chance."""
    monkeypatch.setattr("bench.wire.processes.ENDED_S", 0.1)
    port = free_port()
    command = [sys.executable, "-c", STUBBORN, str(port)]

    with child("stubborn", command, port, cores=[0], folder=tmp_path) as running:
        pass

    assert not _is_there(running.pid)


def test_a_child_that_ends_early_is_quoted(tmp_path: Path) -> None:
    """Its last words are the reason."""
    command = [sys.executable, "-c", "raise SystemExit('I had no luck')"]

    with (
        pytest.raises(CannotMeasure, match="unlucky ended at once:\nI had no luck"),
        child("unlucky", command, free_port(), cores=[0], folder=tmp_path),
    ):
        pass


def test_a_child_that_never_answers_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And ended."""
    monkeypatch.setattr("bench.wire.processes.READY_S", 0.1)
    command = [sys.executable, "-c", "import time; time.sleep(60)"]

    with (
        pytest.raises(CannotMeasure, match="lazy did not answer"),
        child("lazy", command, free_port(), cores=[0], folder=tmp_path),
    ):
        pass


def test_a_child_gets_none_of_our_settings(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the benchmark would measure whatever is set where it was started."""
    monkeypatch.setenv("SLOTS", "7")

    with ground.upstream(8) as running:
        environ = Path(f"/proc/{running.pid}/environ").read_text()
    assert "SLOTS" not in environ


def test_a_child_stays_on_its_core(ground: Ground) -> None:
    """And it is seen working."""
    with ground.upstream(8) as running:
        assert os.sched_getaffinity(running.pid) == {*ground.cores.upstream}
        assert running.cpu_s >= 0
        assert running.resident_bytes > 1 << 20


@pytest.mark.parametrize(
    ("usable", "shared"),
    [
        ([0], Cores(proxy=[0], upstream=[0], load=[0])),
        ([3, 1], Cores(proxy=[1], upstream=[3], load=[3])),
        ([0, 1, 2], Cores(proxy=[0], upstream=[1], load=[2])),
        ([4, 5, 6, 7], Cores(proxy=[4], upstream=[5], load=[7])),
    ],
)
def test_what_is_measured_has_a_core_of_its_own(
    usable: Sequence[int], shared: Cores
) -> None:
    """Where there is one."""
    assert share_out(usable) == shared


@pytest.mark.parametrize(
    ("usable", "shared"),
    [
        ([1, 2], Cores(proxy=[1], upstream=[2], load=[2])),
        ([1, 2, 3], Cores(proxy=[1], upstream=[2], load=[3])),
        (range(6), Cores(proxy=[0], upstream=[1, 2, 3, 4], load=[5])),
    ],
)
def test_a_server_of_many_cores_gets_all_the_others(
    usable: Sequence[int], shared: Cores
) -> None:
    """Where there are more than three."""
    assert share_out_for_many(usable) == shared


def test_the_placement_is_told() -> None:
    """Figures of one core are not those of two."""
    told = {str(share_out_for_many(range(count))) for count in (1, 2, 3, 4)}

    assert len(told) == 4
