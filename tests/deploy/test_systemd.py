"""The units for systemd start, reload and stop the proxy as it wants to be."""

import re
import shutil
from pathlib import Path

import attrs
import pytest

from abproxy.process import KILL_S
from abproxy.service.proxy import LAST_S
from abproxy.settings.settings import Settings
from abproxy.settings.sources import read_env_file, variable
from abproxy.telemetry.setup import LAST_SPANS_S
from abproxy.web.listen import BACKLOG
from deploy.deployed import BIN, DEPLOY, run

FOLDER = DEPLOY / "systemd"
KEYS = "abproxy.service.d/keys.conf"
UNITS = (
    "abproxy.service",
    "abproxy.socket",
    "abproxy.service.d/socket.conf",
    KEYS,
)
ENVIRONMENT = FOLDER / "abproxy.env"

A_START_S = 3.0
"""How long a start takes that fails, at most."""

MOST_EXPOSED = "20"
"""The most that systemd's own judgement may be, of 100."""

LINES = {
    name: (FOLDER / name).read_text(encoding="utf-8").splitlines() for name in UNITS
}


def _set_in(name: str) -> dict[str, str]:
    lines = (line for line in LINES[name] if re.match(r"[A-Z]\w+=", line))
    return dict(line.split("=", 1) for line in lines)


SET = _set_in("abproxy.service")

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="no systemd here"
)


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """Write the units as if abproxy were installed where they say."""
    for name in UNITS:
        unit = tmp_path / name
        unit.parent.mkdir(exist_ok=True)
        text = "\n".join(LINES[name])
        unit.write_text(text.replace("/opt/abproxy/bin", str(BIN)) + "\n")
    return tmp_path


@needs_systemd
@pytest.mark.parametrize("unit", ["abproxy.service", "abproxy.socket"])
def test_systemd_has_nothing_to_say_against_it(installed: Path, unit: str) -> None:
    """Not even a warning: what it does not know it would leave out."""
    verified = run("systemd-analyze", "verify", installed / unit)

    assert verified.returncode == 0
    assert "abproxy." not in verified.stdout + verified.stderr


@needs_systemd
def test_it_is_well_confined(installed: Path) -> None:
    """In the judgement of systemd."""
    judged = run(
        *("systemd-analyze", "security", "--offline=true"),
        *(f"--threshold={MOST_EXPOSED}", "--no-pager", installed / "abproxy.service"),
    )

    assert judged.returncode == 0, judged.stdout


@pytest.mark.parametrize("unit", UNITS)
def test_each_line_is_a_setting_a_section_or_a_comment(unit: str) -> None:
    """One that is none of these would be left out."""
    kinds = r"[A-Z]\w+=.*|\[(Unit|Service|Socket|Install)\]|#.*|"

    assert [line for line in LINES[unit] if not re.fullmatch(kinds, line)] == []


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


def test_it_is_started_when_it_answers() -> None:
    """It says so itself; a start with a wrong setting is one that fails."""
    assert SET["Type"] == "notify"
    assert "NotifyAccess" not in SET  # workers have nothing to say


def test_what_cannot_start_is_given_up() -> None:
    """So that systemd says it has failed, and does not start it for ever."""
    round_s = float(SET["RestartSec"]) + A_START_S
    needed_s = float(SET["StartLimitBurst"]) * round_s

    assert needed_s < float(SET["StartLimitIntervalSec"])


def test_the_service_takes_the_port_of_the_socket_unit() -> None:
    """The first one that systemd passes, and it holds as many calls as ours would."""
    socket, service = map(_set_in, UNITS[1:3])

    assert service["Environment"] == "PORT=systemd:domain=INET:index=0"
    assert service["Requires"] == service["After"] == "abproxy.socket"
    assert socket["ListenStream"] == f"{Settings().ip}:{Settings().port}"
    assert int(socket["Backlog"]) == BACKLOG


def test_keys_are_read_from_the_copies_that_systemd_makes() -> None:
    """Each setting is one of files, and has its file."""
    known = {variable(each.metadata["option"]) for each in attrs.fields(Settings)}
    text = "\n".join(LINES[KEYS])
    loaded = re.findall(
        r"^LoadCredential=([\w-]+):/etc/abproxy/\1$", text, re.MULTILINE
    )
    named = dict(re.findall(r"(?m)^Environment=(\w+)=%d/(.*)$", text))

    assert set(named) <= known
    assert list(named.values()) == loaded == ["api-key", "inference-service-key"]


def test_its_environment_is_understood() -> None:
    """Each line in the same way by systemd and by the proxy; what is off as well."""
    lines = ENVIRONMENT.read_text(encoding="utf-8").splitlines()
    known = {variable(each.metadata["option"]) for each in attrs.fields(Settings)}
    named = {name for line in lines for name in re.findall(r"^#?(\w+)=\S+$", line)}

    assert [each for each in lines if not re.fullmatch(r"#.*|\w+=\S+|", each)] == []
    assert named > {"INFERENCE_SERVICE_URL", "IP"}
    assert named <= known


def test_its_environment_leaves_settings_to_the_file_that_is_read_again() -> None:
    """What is set here cannot be changed by a reload, nor by another default."""
    assert set(read_env_file(str(ENVIRONMENT))) == {"INFERENCE_SERVICE_URL"}
