"""`twistd abproxy` is there, however and wherever abproxy was installed."""

import socket
import subprocess
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parent.parent.parent
PACKAGES = ("abproxy/", "abproxy_model/")


@pytest.fixture(params=["installed", "editable"])
def environment(request: pytest.FixtureRequest) -> Any:
    """Take an environment of each kind."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def taken() -> Iterator[int]:
    """Give the number of a port that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as ours:
        yield ours.getsockname()[1]


def test_twistd_lists_both_commands(environment: Any, tmp_path: Path) -> None:
    """From any directory, in a fresh environment."""
    listed = environment.twistd("--help", cwd=tmp_path)

    commands = [line.split()[0] for line in listed.stdout.splitlines() if line.strip()]
    assert {"abproxy", "abproxy-model"} <= set(commands)


def test_twistd_explains_the_command(environment: Any, tmp_path: Path) -> None:
    """Its options can be loaded, and with them all that it imports."""
    explained = environment.twistd("abproxy", "--help", cwd=tmp_path)

    assert "--inference-service-url=" in explained.stdout
    assert explained.returncode == 0


def test_the_health_check_is_a_command(environment: Any, tmp_path: Path) -> None:
    """In the folder with `twistd`, where an image looks for it."""
    command = environment.folder / "bin/abproxy-health"
    asked = subprocess.run(  # noqa: S603
        [command, "--port=1"],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    told = "abproxy does not answer on http://127.0.0.1:1: Connection refused\n"
    assert (asked.returncode, asked.stdout, asked.stderr) == (1, told, "")


@pytest.mark.parametrize("mode", ["--nodaemon", "--logfile=daemon.log"])
def test_a_port_in_use_is_one_line_and_exit_code_1(
    installed: Any, tmp_path: Path, taken: int, mode: str
) -> None:
    """In the foreground, and before becoming a daemon."""
    ended = installed.twistd(mode, "abproxy", "--port", str(taken), cwd=tmp_path)

    reason = f"cannot listen on 127.0.0.1 port {taken}: Address already in use"
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == f"abproxy: {reason}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--slots=x"], "--slots: expected a whole number, 1 or more, not 'x'"),
        (
            ["--inference-service-url=host"],
            "--inference-service-url: expected a URL like http://host:port, not 'host'",
        ),
        (["--env-file=."], "cannot read settings from .: Is a directory"),
        (
            ["--port=0", "--access-log=."],
            "ACCESS_LOG: cannot write to .: Is a directory",
        ),
        (["--nonsense"], "option --nonsense not recognized"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_1(
    installed: Any, tmp_path: Path, arguments: list[str], message: str
) -> None:
    """No traceback."""
    ended = installed.twistd("--nodaemon", "abproxy", *arguments, cwd=tmp_path)

    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == f"abproxy: {message}\n"


@pytest.mark.parametrize("folder", ["twisted", "twisted/plugins"])
def test_the_plugin_folders_are_no_packages(folder: str) -> None:
    """With an `__init__.py` they would hide Twisted, or the plugin from it."""
    assert not (ROOT / folder / "__init__.py").exists()


def test_the_wheel_has_the_packages_the_plugin_and_nothing_else(wheel: Path) -> None:
    """Above all no tests and no tools."""
    with ZipFile(wheel) as archive:
        names = archive.namelist()

    outside = [
        name
        for name in names
        if not name.startswith(PACKAGES) and ".dist-info/" not in name
    ]
    assert outside == ["twisted/plugins/abproxy_plugin.py"]


def test_the_wheel_has_types(wheel: Path) -> None:
    """Type checkers look for the marker."""
    with ZipFile(wheel) as archive:
        assert {f"{package}py.typed" for package in PACKAGES} <= set(archive.namelist())


def test_the_wheel_has_every_module_and_page(checkout: Path, wheel: Path) -> None:
    """A package without an `__init__.py` would be left out, and so would a page."""
    with ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith(PACKAGES)}

    files = [
        *checkout.glob("abproxy*/**/*.py"),
        *checkout.glob("abproxy*/py.typed"),
        *checkout.glob("abproxy/web/pages/*"),
    ]
    assert packed == {str(each.relative_to(checkout)) for each in files}


def test_the_wheel_has_the_licence(wheel: Path) -> None:
    """The text travels with the package, and the metadata names it."""
    with ZipFile(wheel) as archive:
        [metadata] = [name for name in archive.namelist() if name.endswith("/METADATA")]
        [licence] = [name for name in archive.namelist() if name.endswith("/LICENSE")]
        fields = Parser().parsestr(archive.read(metadata).decode())
        text = archive.read(licence)

    assert "MIT" in (fields["License-Expression"], fields["License"])
    assert text == (ROOT / "LICENSE").read_bytes()
