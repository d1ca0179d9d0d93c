"""Containers, run by Podman on images that are made here."""

import os
import resource
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from attrs import define

from real.running import ROOT, CannotRun, free_port

__all__ = ["BASE", "IMAGE", "MODEL_IMAGE", "SYSTEMD_IMAGE", "Podman", "podman"]

BASE = "localhost/abproxy-base"
"""Debian's own packages, as the images of Python cannot be had everywhere."""

IMAGE, MODEL_IMAGE = "abproxy", "abproxy:model"
SYSTEMD_IMAGE = "localhost/abproxy-systemd"

DEBIAN = "bookworm"
PACKAGES = "python3,python3-venv,python3-pip,ca-certificates"

SYSTEMD = f"""\
FROM {IMAGE}
USER 0
WORKDIR /
RUN apt-get -qq update
RUN apt-get -qq install --no-install-recommends systemd-sysv dbus procps
ENTRYPOINT []
CMD ["/sbin/init"]
"""

ENOUGH = 10_000
"""Open files, and processes, of a container."""

FILES, PROCESSES = resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC

LOCAL_CAS = Path("/usr/local/share/ca-certificates")
"""Where Debian has those of a company, which a build has to trust as well."""


@define
class Podman:
    """Runs podman, as far as this machine lets it."""

    folder: Path

    def environment(self) -> dict[str, str]:
        """Return an environment with a configuration for this machine."""
        config = self.folder / "containers.conf"
        if not config.exists():
            # A root that may not raise limits cannot give containers what Podman
            # would: more than it has itself.
            files, processes = (_hard(each) for each in (FILES, PROCESSES))
            limits = f'"nofile={files}:{files}", "nproc={processes}:{processes}"'
            config.write_text(
                f"[containers]\ndefault_ulimits=[{limits}]\n"
                '[engine]\ncgroup_manager="cgroupfs"\nruntime="runc"\n'
            )
        cas = "".join(each.read_text() for each in sorted(LOCAL_CAS.glob("*.crt")))
        return {**os.environ, "CONTAINERS_CONF": str(config), "CA": cas}

    def run(self, *command: str, text: str = "") -> str:
        """
        Run a command to its end, and return what it writes.

        Raises:
            CannotRun: it failed.
        """
        ran = subprocess.run(  # noqa: S603
            command,
            cwd=ROOT,
            env=self.environment(),
            input=text,
            capture_output=True,
            text=True,
            check=False,
        )
        if ran.returncode:
            raise CannotRun(f"{' '.join(command)}: {(ran.stdout + ran.stderr)[-2000:]}")
        return ran.stdout

    def __call__(self, *arguments: str, text: str = "") -> str:
        """Run podman itself."""
        return self.run("podman", *arguments, text=text)

    def has(self, image: str) -> bool:
        """Say whether there is such an image."""
        try:
            self("image", "exists", image)
        except CannotRun:
            return False
        return True

    def build(self) -> None:
        """Build all images, with `make image` as anyone does."""
        if not self.has(BASE):
            self._make_base()
        make = ("make", "image", "ENGINE=podman", f"BASE={BASE}", "args=--network=host")
        self.run(*make)
        self.run(*make, "target=model")
        build = ("build", "--network=host", f"--tag={SYSTEMD_IMAGE}", "--file=-")
        self(*build, str(self.folder), text=SYSTEMD)

    def _make_base(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            root, archive = Path(name) / "root", Path(name) / "root.tar"
            make = ("debootstrap", "--variant=minbase", f"--include={PACKAGES}")
            self.run(*make, DEBIAN, str(root))
            self.run("tar", "-C", str(root), "-c", ".", "-f", str(archive))
            self("import", str(archive), BASE)

    @contextmanager
    def running(
        self, image: str, options: Sequence[str], *arguments: str
    ) -> Iterator[str]:
        """Run a container on the network of this machine, and give its name."""
        name = f"abproxy-{free_port()}"
        start = ("run", "--detach", f"--name={name}", "--network=host", *options)
        self(*start, image, *arguments)
        try:
            yield name
        finally:
            self("rm", "--force", "--time=0", name)


def _hard(kind: int) -> int:
    _, hard = resource.getrlimit(kind)
    return ENOUGH if hard == resource.RLIM_INFINITY else min(hard, ENOUGH)


def podman(folder: Path) -> Podman:
    """
    Return a way to run podman.

    Raises:
        CannotRun: containers do not run here.
    """
    found = Podman(folder)
    found("info")
    return found
