"""
abproxy with real programs: in front of servers, behind balancers, and in containers.

Of servers: are answers as if each call were alone?  Of the others: does a restart
under load lose a call?

Each server is asked directly, one call after the other, and then on several ways
through abproxy, alone and together.  What differs is counted, shown, and written
into docs/tested.json and docs/compatibility.md.  Restarts are described in
tests/real/restarts.py.
"""

import argparse
import datetime as dt
import importlib.metadata
import json
import platform
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import asdict

from real import between, clients, killing, report, restarts, rounds
from real.between import Way
from real.comparing import TOLERANCE
from real.running import CannotRun
from real.servers import infinity, litellm, litserve, llama_cpp, mosec, vllm
from real.serving import Server

SERVERS = (
    llama_cpp.SERVER,
    infinity.SERVER,
    vllm.SERVER,
    mosec.SERVER,
    litserve.SERVER,
    litserve.BATCHING,
    litellm.SERVER,
)
PLACES = sorted({each.place for each in SERVERS})
WAYS = (*between.WAYS, *(way for each in SERVERS for way in each.ways))


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="make test/real",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    names = (*PLACES, *restarts.NAMES)
    add("programs", nargs="*", choices=names, help="by default all")
    add("--way", action="append", choices=WAYS, help="by default all")
    add("--dry", action="store_true", help="write nothing")
    add("--out", type=Path, help="write what was found into this file as well")
    return parser.parse_args(arguments)


def say(line: str) -> None:
    """Print *line* at once."""
    print(line, flush=True)  # noqa: T201


def run_server(server: Server, ways: Sequence[str], folder: Path) -> dict[str, Any]:
    """Run *server*, and ask it directly and on all *ways*."""
    say(f"{server.name}: starting")
    with server.serve(folder / "server") as url:
        say(f"{server.name}: asking directly")
        cases = rounds.ask_directly(server, url)
        found = []
        used: dict[str, Any] = {}
        known = {**between.WAYS, **server.ways}
        for at, name in enumerate(each for each in known if each in ways):
            say(f"{server.name}: {name}")
            with known[name](folder / str(at), url, server.serve) as way:
                done = rounds.go(cases, way, say, is_short=name != between.LONG)
                found.append(report.way_found(name, done, way.batches()))
                if way.abproxy:
                    _use_clients(server, url, way, name, used)
    return {
        "what": server.what,
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "versions": dict(server.versions()),
        "routes": [each.path for each in server.dialects],
        "ways": found,
        "clients": used,
        "killed": _killed(server, folder / "killed"),
    }


def _killed(server: Server, folder: Path) -> dict[str, Any]:
    say(f"{server.name}: two of them, one killed under load and started again")
    found = asdict(killing.run(server, folder))
    say(f"  {found['lost']} of {found['calls']:,} calls lost")
    return found


def _use_clients(
    server: Server, direct: str, way: Way, name: str, used: dict[str, Any]
) -> None:
    asked = (use for use in clients.uses(server) if use.name not in way.not_asked)
    for use in asked:
        counted = used.setdefault(use.client, {"uses": 0, "failures": []})
        counted["uses"] += 1
        if differs := clients.differ(use, direct, way.url):
            say(f"  {use.client}, {use.name}: {differs}")
            failure = {"way": name, "use": use.name, "difference": differs}
            counted["failures"].append(failure)


def run(
    servers: Sequence[Server], ways: Sequence[str], *, is_dry: bool
) -> tuple[dict[str, Any], list[str]]:
    """Run *servers*, and write; give what was found, and what could not run."""
    found, cannot = {}, []
    for server in servers:
        name = server.name
        with tempfile.TemporaryDirectory(prefix="abproxy-real-") as folder:
            try:
                found[name] = run_server(server, ways, Path(folder))
            except CannotRun as error:
                say(f"{name}: {error}")
                cannot.append(name)
        if name in found and not is_dry:
            now = _described({name: found[name]})
            report.write(report.merged(report.read(), now))
    return found, cannot


def _described(servers: Mapping[str, Any]) -> dict[str, Any]:
    programs = {
        "abproxy": importlib.metadata.version("abproxy"),
        "Python": platform.python_version(),
        **between.versions(),
        **clients.versions(),
    }
    settings = " ".join(f"{name}={value}" for name, value in between.SETTINGS.items())
    return {
        "programs": programs,
        "settings": settings,
        "tolerance": TOLERANCE,
        "servers": servers,
    }


def _counts(servers: Mapping[str, Any]) -> tuple[int, int]:
    ways = [way for each in servers.values() for way in each["ways"]]
    used = [use for each in servers.values() for use in each["clients"].values()]
    asked = sum(each["calls"] for each in ways) + sum(each["uses"] for each in used)
    failed = sum(each["failed"] for each in ways)
    return asked, failed + sum(len(each["failures"]) for each in used)


def restart(names: Sequence[str], *, is_dry: bool) -> tuple[dict[str, Any], list[str]]:
    """Restart under load, and write; give what was found, and what could not run."""
    found, cannot = {}, []
    for name in names:
        say(f"{name}: restarts")
        with tempfile.TemporaryDirectory(prefix="abproxy-real-") as folder:
            try:
                found[name] = restarts.run(name, Path(folder))
            except CannotRun as error:
                say(f"{name}: {error}")
                cannot.append(name)
                continue
        for each in found[name]:
            say(f"  {each['what']}: {each['lost']} of {each['calls']:,} calls lost")
        if not is_dry:
            earlier = report.read()
            known = {**earlier.get("restarts", {}), name: found[name]}
            report.write_file({**earlier, "restarts": dict(sorted(known.items()))})
            restarts.write(report.read()["restarts"])
    return found, cannot


def main(arguments: Sequence[str]) -> int:
    """Run, show, write; the exit status is 1 if anything differs or cannot run."""
    options = parse(arguments)
    ways = options.way or WAYS
    programs = options.programs or [*PLACES, *restarts.NAMES]
    servers = [each for each in SERVERS if each.place in programs]
    found, cannot = run(servers, ways, is_dry=options.dry)
    tested = _described(found)
    if found:
        say(report.section(tested))
    names = [each for each in restarts.NAMES if each in programs]
    tested["restarts"], cannot_restart = restart(names, is_dry=options.dry)
    cannot += cannot_restart
    if options.out:
        options.out.write_text(json.dumps(tested, indent=1, ensure_ascii=False))
    asked, failed = _counts(found)
    say(f"{asked - failed} passed, {failed} failed")
    lost = restarts.lost(tested["restarts"])
    killed = sum(each["killed"]["lost"] for each in found.values())
    say(f"{lost} lost in restarts, {killed} as a server was killed")
    for name in cannot:
        say(f"could not run: {name}")
    return 1 if failed or lost or killed or cannot else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
