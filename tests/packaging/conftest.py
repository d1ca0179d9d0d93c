"""Environments as a user would make them: from a wheel, and editable."""

import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from attrs import frozen

ROOT = Path(__file__).parent.parent.parent
PACKAGES = ("abproxy", "abproxy_model", "twisted")
TOOLS = "tools"  # must stay out of the wheel
SOURCES = (*PACKAGES, TOOLS, "setup.py", "pyproject.toml", "README.md", "LICENSE")
SITE_PACKAGES = sysconfig.get_path("purelib")
QUIET = ("--quiet", "--disable-pip-version-check", "--no-index", "--no-deps")


@frozen
class Environment:
    """A virtual environment with abproxy and all that it needs."""

    folder: Path

    def pip_install(self, *what: str | Path) -> None:
        """Install without asking a package index for anything."""
        command = [sys.executable, "-m", "pip", "--python", self.folder / "bin/python"]
        command += ["install", "--no-build-isolation", *QUIET, *what]
        subprocess.run(command, check=True)  # noqa: S603

    def twistd(self, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run the real `twistd` in the folder *cwd*."""
        python = self.folder / "bin/python"
        twistd = Path(sys.executable).parent / "twistd"
        return subprocess.run(  # noqa: S603
            [python, "-I", twistd, *arguments],
            cwd=cwd,
            env={"PATH": "/usr/bin:/bin"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )


def _environment(folder: Path) -> Environment:
    """
    Make a fresh environment that lacks nothing but abproxy.

    It borrows the other packages of the running one.  A path in a `.pth` file
    is all there is to it: the `.pth` files of that place are not read, so an
    abproxy that is installed there as editable stays out.
    """
    venv.create(folder, symlinks=True)
    [site_packages] = folder.glob("lib/python*/site-packages")
    (site_packages / "borrowed.pth").write_text(SITE_PACKAGES)
    return Environment(folder)


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy what a package is made of, so that building leaves nothing behind."""
    folder = tmp_path_factory.mktemp("checkout")
    ignored = shutil.ignore_patterns("__pycache__", "dropin.cache")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=ignored)
        else:
            shutil.copy(source, folder)
    return folder


@pytest.fixture(scope="session")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-build-isolation", *QUIET]
    subprocess.run([*command, "-w", folder, checkout], check=True)  # noqa: S603
    [built] = folder.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Install the wheel in a fresh environment."""
    environment = _environment(tmp_path_factory.mktemp("installed"))
    environment.pip_install(wheel)
    return environment


@pytest.fixture(scope="session")
def editable(
    checkout: Path, wheel: Path, tmp_path_factory: pytest.TempPathFactory
) -> Environment:
    """Install the checkout as editable in a fresh environment."""
    assert wheel  # built first, as both use the checkout
    environment = _environment(tmp_path_factory.mktemp("editable"))
    environment.pip_install("--editable", checkout)
    return environment
