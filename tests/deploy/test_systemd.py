"""The unit for systemd starts, reloads and stops the proxy as it wants to be."""

import re
import shutil
from pathlib import Path

import pytest

from abproxy.process import KILL_S
from abproxy.service import LAST_S
from abproxy.settings.settings import Settings
from abproxy.telemetry.setup import LAST_SPANS_S
from deploy.deployed import BIN, DEPLOY, ROOT, run

UNIT = DEPLOY / "systemd/abproxy.service"

MOST_EXPOSED = "20"
"""The most that systemd's own judgement may be, of 100."""

LINES = UNIT.read_text(encoding="utf-8").splitlines()
SET = dict(line.split("=", 1) for line in LINES if re.match(r"[A-Z]\w+=", line))

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="no systemd here"
)


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """Write the unit as if abproxy were installed where it says."""
    unit = tmp_path / "abproxy.service"
    unit.write_text(UNIT.read_text().replace("/opt/abproxy/bin", str(BIN)))
    return unit


@needs_systemd
def test_systemd_has_nothing_to_say_against_it(installed: Path) -> None:
    """Not even a warning: what it does not know it would leave out."""
    verified = run("systemd-analyze", "verify", installed)

    assert verified.returncode == 0
    assert "abproxy.service" not in verified.stdout + verified.stderr


@needs_systemd
def test_it_is_well_confined(installed: Path) -> None:
    """In the judgement of systemd."""
    judged = run(
        *("systemd-analyze", "security", "--offline=true"),
        *(f"--threshold={MOST_EXPOSED}", "--no-pager", installed),
    )

    assert judged.returncode == 0, judged.stdout


def test_each_line_is_a_setting_a_section_or_a_comment() -> None:
    """One that is none of these would be left out."""
    kinds = r"[A-Z]\w+=.*|\[(Unit|Service|Install)\]|#.*|"

    assert [line for line in LINES if not re.fullmatch(kinds, line)] == []


def test_it_runs_the_proxy_in_the_foreground() -> None:
    """As systemd follows the process that it starts."""
    command = "/opt/abproxy/bin/twistd --nodaemon --pidfile= abproxy"

    assert SET["ExecStart"] == command
    assert SET["Restart"] == "always"
    assert SET["DynamicUser"] == "yes"


def test_reload_reads_settings_again() -> None:
    """By SIGHUP, and from the folder that it runs in."""
    assert SET["ExecReload"] == "/bin/kill -HUP $MAINPID"
    assert SET["WorkingDirectory"] == "/etc/abproxy"


def test_it_may_drain() -> None:
    """It is killed later than the proxy and its model give up by themselves."""
    last_s = KILL_S + LAST_S + LAST_SPANS_S

    assert float(SET["TimeoutStopSec"]) > Settings().drain_timeout_s + last_s
    assert SET["KillMode"] == "mixed"


def test_it_may_open_as_many_connections_as_are_allowed() -> None:
    """And as many again to the inference server."""
    assert int(SET["LimitNOFILE"]) > 2 * Settings().max_connections


def test_figures_of_the_process_stay_readable() -> None:
    """They need more of /proc than the process itself."""
    assert "ProcSubset" not in SET


def test_the_example_of_settings_can_be_its_environment() -> None:
    """Every line of it is understood in the same way."""
    lines = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()

    assert [each for each in lines if not re.fullmatch(r"#.*|\w+=\S*|", each)] == []
