"""`make test` gets from Debian what tests start, where it may and must."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
MAKE = shutil.which("make")
PROGRAMS = (
    *("chromium", "chromedriver", "haproxy", "nginx", "prometheus", "promtool"),
    "redis-server",
    "wrk",
)

pytestmark = pytest.mark.skipif(MAKE is None, reason="no make")


def _put(folder: Path, *programs: str, code: int = 0) -> None:
    """Put *programs* into a folder that note their calls and end with *code*."""
    for program in programs:
        path = folder / program
        path.write_text(f'#!/bin/sh\necho "$@" >> {folder}/calls\nexit {code}\n')
        path.chmod(0o755)


def _calls(folder: Path) -> str:
    return (folder / "calls").read_text() if (folder / "calls").exists() else ""


def _make(folder: Path) -> str:
    """Let make look for tools on a machine that has only what is in *folder*."""
    made = subprocess.run(  # noqa: S603
        [str(MAKE), ".test/tools"],
        cwd=ROOT,
        env={"PATH": str(folder), "CI": "true"},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return made.stdout


@pytest.mark.parametrize("missing", PROGRAMS)
def test_what_is_missing_is_installed(tmp_path: Path, missing: str) -> None:
    """All of it at once, without what Debian only recommends, and it is said so."""
    _put(tmp_path, "apt-get", *({*PROGRAMS} - {missing}))

    said = _make(tmp_path)

    packages = "chromium chromium-driver haproxy nginx prometheus redis-server wrk"
    assert said == f"Installing {packages} for the tests, once ...\n"
    assert f"install --no-install-recommends {packages}\n" in _calls(tmp_path)


def test_nothing_is_installed_that_is_there(tmp_path: Path) -> None:
    """The second run costs nothing and says nothing."""
    _put(tmp_path, "apt-get", *PROGRAMS)

    said = _make(tmp_path)

    assert (said, _calls(tmp_path)) == ("", "")


def test_without_apt_the_tests_go_on(tmp_path: Path) -> None:
    """Not every machine is a Debian."""
    assert _make(tmp_path) == ""


def test_if_nothing_can_be_installed_the_tests_go_on(tmp_path: Path) -> None:
    """The network may be away; the tests themselves say what they miss."""
    _put(tmp_path, "apt-get", code=1)

    assert "Going on without them" in _make(tmp_path)
