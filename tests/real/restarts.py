"""
Restarts under load: behind load balancers, in containers, and under systemd.

A call is lost if it was sent and not answered with 200.  What was found is written
into docs/tested.json, and as a table into deploy/README.md.
"""

import datetime as dt
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import asdict, frozen

from deploy.balancing import (
    BALANCERS,
    Load,
    ask,
    balanced,
    free_port,
    proxies,
    restart_each,
    until,
    upstream,
)
from real.containers import IMAGE, MODEL_IMAGE, SYSTEMD_IMAGE, Podman, podman
from real.running import PLACES, ROOT, CannotRun

__all__ = ["NAMES", "Found", "lost", "run", "section", "section_in", "write"]

PAGE = ROOT / "deploy/README.md"
BEGIN = "<!-- made by `make test/real`: begin -->\n"
END = "<!-- made by `make test/real`: end -->\n"

REFUSED = "refused"
"""Of a call that was never sent."""

OK = 200

SETTLED_S = 1.0
"""For how long there is load before and after."""


@frozen(kw_only=True)
class Found:
    """What was run, and how it went."""

    what: str
    program: str
    calls: int
    lost: int
    refused: int
    """Connections that were refused, while nothing listened."""

    date: str


def _found(what: str, program: str, load: Load) -> Found:
    return Found(
        what=what,
        program=program,
        calls=sum(load.answers.values()) + sum(load.lost.values()),
        lost=sum(load.failed.values()) - load.lost[REFUSED],
        refused=load.lost[REFUSED],
        date=dt.datetime.now(dt.UTC).date().isoformat(),
    )


def _behind(name: str, folder: Path) -> Iterator[Found]:
    """Restart two processes behind a balancer, one after the other, three times."""
    balancer = BALANCERS[name]
    if balancer.program is None:
        raise CannotRun(f"{name} is not installed")
    program = f"{name} {balancer.version()}"
    for options in ((), ("--workers=2",)):
        at = folder / str(len(options))
        with (
            upstream(at / "upstream") as url,
            proxies(at, url, *options) as both,
            balanced(balancer, at / "front", [each.port for each in both]) as port,
        ):
            load = Load(port)
            with load.running():
                for _ in range(3):
                    restart_each(both)
        yield _found(_rolling(options), program, load)


def _rolling(options: Sequence[str]) -> str:
    return " ".join(["six restarts, of two processes in turn", *_with(options)])


def _with(options: Sequence[str]) -> list[str]:
    return [f"with `{' '.join(options)}`"] if options else []


def _in_podman(folder: Path) -> Iterator[Found]:
    """
    Stop a container that cannot write anywhere, while clients call it.

    Its settings are in a file, and its own health check reads them, too.
    """
    engine = _engine(folder)
    for options in ((), ("--workers=2",)):
        port = free_port()
        confined = ("--read-only", "--read-only-tmpfs=false", "--cap-drop=ALL")
        health = ("--health-cmd=abproxy-health", "--health-interval=disable")
        with upstream(folder / f"upstream{len(options)}") as url:
            mounted = folder / f"etc{len(options)}"
            mounted.mkdir()
            settings = f"PORT={port}\nINFERENCE_SERVICE_URL={url}\n"
            (mounted / ".env").write_text(settings)
            own = f"--volume={mounted}:/etc/abproxy:ro"
            with engine.running(IMAGE, [*confined, *health, own], *options) as name:
                until(lambda port=port: _answers(port))
                engine("healthcheck", "run", name)
                load = Load(port)
                with load.running():
                    time.sleep(SETTLED_S)
                    engine("stop", "--time=40", name)
                    code = engine("inspect", "--format={{.State.ExitCode}}", name)
                if code.strip() != "0":
                    raise CannotRun(engine("logs", name))
        what = " ".join(["`podman stop` of a read-only container", *_with(options)])
        yield _found(what, _version(engine), load)


def _in_compose(folder: Path) -> Iterator[Found]:
    """Start both profiles of compose.yaml, and stop them while clients call."""
    engine = _engine(folder)
    program = str(PLACES / "podman_compose/bin/podman-compose")
    other = folder / "other.yaml"
    # text-embeddings-inference is in a registry; this is what stands in for it.
    instead = {
        "image": MODEL_IMAGE,
        "entrypoint": ["twistd", "--nodaemon", "--pidfile=", "abproxy-model"],
        "command": ["--ip=0.0.0.0", "--port=80", "--model=static"],
        "sysctls": ["net.ipv4.ip_unprivileged_port_start=80"],
        "healthcheck": {"test": ["NONE"]},
    }
    other.write_text(json.dumps({"services": {"inference": instead}}))
    for service in ("embedded", "abproxy"):
        port = free_port()
        files = ("-f", str(ROOT / "compose.yaml"), "-f", str(other))
        compose = ("env", f"PORT={port}", program, "-p", f"abproxy{port}", *files)
        profile = ("--profile", "embedded") if service == "embedded" else ()
        engine.run(*compose, *profile, "up", "--detach", "--no-build", service)
        try:
            until(lambda port=port: _answers(port))
            load = Load(port, clients=8)
            with load.running():
                time.sleep(SETTLED_S)
                engine.run(*compose, *profile, "stop", service)
        finally:
            engine.run(*compose, *profile, "down", "--volumes")
        yield _found(
            f"`podman-compose stop {service}`, of a service of compose.yaml",
            f"podman-compose {_first_number(engine.run(program, '--version'))}",
            load,
        )


def _under_systemd(folder: Path) -> Iterator[Found]:
    """Restart the unit twice, with the unit for its port."""
    engine = _engine(folder)
    port = free_port()
    units = ROOT / "deploy/systemd"
    options = ("--privileged", "--systemd=always", "--health-cmd=none")
    with (
        upstream(folder / "upstream") as url,
        engine.running(SYSTEMD_IMAGE, options) as name,
    ):
        inside = ("exec", name)
        until(lambda: _is_up(engine, name))
        engine(
            *inside,
            "mkdir",
            "-p",
            "/etc/abproxy",
            "/etc/systemd/system/abproxy.service.d",
        )
        for file in (
            "abproxy.service",
            "abproxy.socket",
            "abproxy.service.d/socket.conf",
        ):
            text = (units / file).read_text().replace(":8081", f":{port}")
            _write(engine, name, f"/etc/systemd/system/{file}", text)
        text = (units / "abproxy.env").read_text().replace("http://127.0.0.1:8080", url)
        _write(engine, name, "/etc/abproxy/abproxy.env", text)
        control = (*inside, "systemctl")
        engine(*control, "daemon-reload")
        engine(*control, "start", "abproxy.socket")
        until(lambda: _answers(port))
        load = Load(port)
        with load.running():
            for _ in range(2):
                time.sleep(SETTLED_S)
                engine(*control, "reload", "abproxy")
                engine(*control, "restart", "abproxy")
            time.sleep(SETTLED_S)
        version = _first_number(engine(*control, "--version"))
        _expect_failure(engine, name)
    yield _found(
        "`systemctl reload` and `restart`, twice, with the socket unit",
        f"systemd {version}",
        load,
    )


def _expect_failure(engine: Podman, name: str) -> None:
    """Check that a start with a wrong setting fails, and is given up."""
    _write(engine, name, "/etc/abproxy/abproxy.env", "MAX_WAIT_TIME=soon\n")
    try:
        engine("exec", name, "systemctl", "restart", "abproxy")
    except CannotRun:
        pass
    else:
        raise CannotRun("systemd has started abproxy with a wrong setting")
    show = ("systemctl", "show", "--property=ActiveState", "--value", "abproxy")
    until(lambda: engine("exec", name, *show).strip() == "failed")


def _write(engine: Podman, name: str, path: str, text: str) -> None:
    engine("exec", "--interactive", name, "tee", path, text=text)


def _is_up(engine: Podman, name: str) -> bool:
    try:
        state = engine("exec", name, "systemctl", "is-system-running")
    except CannotRun:
        return False
    return state.strip() == "running"


def _answers(port: int) -> bool:
    try:
        return ask(port, body={"inputs": "first"})[0] == 200
    except OSError:
        return False


_built: list[Podman] = []


def _engine(folder: Path) -> Podman:
    """Return podman, when all images are built."""
    folder.mkdir(parents=True, exist_ok=True)
    engine = podman(folder)
    if not _built:
        engine.build()
        _built.append(engine)
    return engine


def _version(engine: Podman) -> str:
    return f"podman {_first_number(engine('--version'))}"


def _first_number(text: str) -> str:
    [found, *_] = re.findall(r"\d[\d.]*", text)
    return str(found)


RUNS: Mapping[str, Callable[[Path], Iterator[Found]]] = {
    **{
        name: lambda folder, name=name: _behind(name, folder)  # type: ignore[misc]
        for name in BALANCERS
    },
    "podman": _in_podman,
    "podman-compose": _in_compose,
    "systemd": _under_systemd,
}
NAMES = tuple(RUNS)


def run(name: str, folder: Path) -> list[dict[str, Any]]:
    """
    Run one of them.

    Raises:
        CannotRun: a program is missing, or something did not work at all.
    """
    return [asdict(found) for found in RUNS[name](folder)]


def lost(restarts: Mapping[str, Sequence[Mapping[str, Any]]]) -> int:
    """Return how many calls were lost."""
    return sum(found["lost"] for each in restarts.values() for found in each)


def write(restarts: Mapping[str, Any]) -> None:
    """Write the table on the page."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    page = f"{before}{BEGIN}{section(restarts)}{END}{after}"
    PAGE.write_text(page, encoding="utf-8")


def section_in(page: str) -> str:
    """Find what stands between the marks on the *page*."""
    return page.partition(BEGIN)[2].partition(END)[0]


def section(restarts: Mapping[str, Any]) -> str:
    """Write what stands between the marks."""
    rows = [
        f"| {found['program']} | {found['what']} | {found['calls']:,} "
        f"| {found['lost']:,} | {found['date']} |\n"
        for each in restarts.values()
        for found in each
    ]
    head = "| With | What was done | Calls | lost | Run on |\n"
    return f"\n{head}| --- | --- | --- | --- | --- |\n{''.join(rows)}\n"
