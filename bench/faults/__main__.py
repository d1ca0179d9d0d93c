"""
Lets one of three servers fail under load, in all known ways.

    python -m bench.faults [--only NAME] [--write]

Three servers at three addresses of one name, as behind a headless Service, with a name
server that changes its answers; callers that look at each row.  Of each fault: the
calls that failed, what they waited before and while something was wrong, how long the
server still got more than half of its share, and how long after it was well again it
got work.  The status, which is read 20 times a second, says the shares.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

from attrs import frozen

from bench.faults.load import Call, Load
from bench.faults.servers import NAME, Servers, address
from bench.wire.contestants import ROOT
from bench.wire.cores import share_out, usable
from bench.wire.machine import describe
from bench.wire.pages import replaced
from bench.wire.processes import child, free_port

CALLERS = 24
WARM_S, CALM_S, WRONG_S, WELL_S = 1.5, 3.0, 4.0, 3.0
EVERY_S = 1
DOCUMENT = ROOT / "docs" / "many-servers.md"
JSON = ROOT / "docs" / "faults.json"
MAKER = "make bench/faults"
ALWAYS = 1_000_000_000
GOT = 0.005
"""From this share on a server has work."""

Do = Callable[[Servers], object]


@frozen(kw_only=True)
class Fault:
    """What is done to the third server, and how it is mended."""

    name: str
    do: Do
    mend: Do = lambda _: None
    first: Sequence[int] = (1, 2, 3)
    """The servers whose addresses the name has at first."""

    watched: int | None = 3
    """The server that gets less while something is wrong; none if all do."""

    comes: int | None = 3
    """The server that gets work when all is well."""


def _break(fault: str, value: int = 0) -> Do:
    return lambda here: here.tell(3, "break", fault=fault, value=value, times=ALWAYS)


def _mend(here: Servers) -> None:
    here.tell(3, "mend")


def _restart(here: Servers, *options: str) -> None:
    here.kill(3)
    here.start(3, *options)


def _restart_all(here: Servers) -> None:
    for number in (1, 2, 3):
        here.kill(number)
        here.start(number)


def _replace_all(here: Servers) -> None:
    there = [1, 2, 3]
    for old, new in ((1, 4), (2, 5), (3, 6)):
        here.start(new)
        there = [new if each == old else each for each in there]
        here.name(*there)


FAULTS = (
    Fault(
        name="one dies (`kill -9`), and is started again",
        do=lambda here: here.kill(3),
        mend=lambda here: here.start(3),
    ),
    Fault(
        name="one stalls: it accepts, and never answers (SIGSTOP)",
        do=lambda here: here.pause(3),
        mend=lambda here: here.go_on(3),
    ),
    Fault(name="one refuses with 429", do=_break("refuse", 429), mend=_mend),
    Fault(name="one refuses with 503", do=_break("refuse", 503), mend=_mend),
    Fault(
        name="one gets ten times slower",
        do=lambda here: here.tell(3, "traits", ms=200, ms_per_input=10),
        mend=lambda here: here.tell(3, "traits", ms=20, ms_per_input=1),
    ),
    Fault(name="one answers with too few rows", do=_break("too-few"), mend=_mend),
    Fault(name="one answers with no JSON", do=_break("garbage"), mend=_mend),
    Fault(
        name="one is replaced by another model, and back",
        do=lambda here: _restart(here, "--model=other"),
        mend=_restart,
    ),
    Fault(
        name="the name gets one more address",
        do=lambda _: None,
        mend=lambda here: here.name(1, 2, 3),
        first=(1, 2),
        watched=None,
    ),
    Fault(
        name="the name loses one address",
        do=lambda here: here.name(1, 2),
        mend=lambda here: here.kill(3),
        comes=None,
    ),
    Fault(
        name="all are restarted (`kill -9`), one after the other",
        do=_restart_all,
        watched=None,
        comes=None,
    ),
    Fault(
        name="all are replaced by others at new addresses, one after the other",
        do=_replace_all,
        watched=None,
        comes=6,
    ),
)


def percentile(calls: Sequence[Call], percent: int) -> float:
    """Return the time in ms that *percent* of the calls kept to."""
    ordered = sorted(each.took_s for each in calls)
    return ordered[min(len(ordered) * percent // 100, len(ordered) - 1)] * 1000


async def play(fault: Fault, here: Servers, port: int) -> dict[str, Any]:
    """Play one row under load."""
    load = Load(port, CALLERS)
    load.start()
    in_thread = partial(asyncio.to_thread)
    await asyncio.sleep(WARM_S)
    calm_at = monotonic()
    await asyncio.sleep(CALM_S)
    wrong_at = monotonic()
    await in_thread(fault.do, here)
    await asyncio.sleep(WRONG_S)
    begins_at = monotonic()
    await in_thread(fault.mend, here)
    well_at = begins_at if fault.watched is None else monotonic()
    await asyncio.sleep(WELL_S)
    await load.stop()
    calm = [each for each in load.calls if calm_at <= each.began_at < wrong_at]
    wrong = [each for each in load.calls if wrong_at <= each.began_at < begins_at]
    lost = Counter(each.error for each in load.calls if each.error)
    return {
        "name": fault.name,
        "calls": len(load.calls),
        "lost": lost,
        "p50_before_ms": percentile(calm, 50),
        "p99_before_ms": percentile(calm, 99),
        "p50_ms": percentile(wrong, 50),
        "p99_ms": percentile(wrong, 99),
        "longest_ms": percentile(load.calls, 100),
        "noticed_s": _noticed(load, here, fault.watched, wrong_at),
        "back_s": _back(load, here, fault.comes, well_at),
    }


def _parts(
    load: Load, here: Servers, number: int, at: float
) -> list[tuple[float, float]]:
    place = f"{address(number)}:{here.port}"
    return [
        (share.at - at, share.part)
        for share in load.shares
        if share.address == place and share.at >= at
    ]


def _noticed(load: Load, here: Servers, number: int | None, at: float) -> float | None:
    """Return after how long a server got less than half of its share, or was gone."""
    if number is None:
        return None
    parts = _parts(load, here, number, at)
    less = [after_s for after_s, part in parts if part < 1 / 6]
    return less[0] if less else parts[-1][0] if parts else 0.0


def _back(load: Load, here: Servers, number: int | None, at: float) -> float | None:
    """Return after how long a server got work."""
    if number is None:
        return None
    got = [after_s for after_s, part in _parts(load, here, number, at) if part > GOT]
    return got[0] if got else None


@contextmanager
def proxied(fault: Fault, folder: Path) -> Any:
    """Start the servers of a row, and abproxy in front of them."""
    here, port = Servers(free_port(), folder), free_port()
    try:
        for number in (1, 2, 3):
            here.start(number)
        here.name(*fault.first)
        command = [sys.executable, "-m", "bench.faults.proxy", here.names]
        environ = {
            "PYTHONPATH": str(ROOT),
            "INFERENCE_SERVICE_URL": f"http://{NAME}:{here.port}",
            "RESOLVE": "all",
            "RESOLVE_EVERY": str(EVERY_S),
        }
        with child(
            "abproxy",
            [*command, f"--port={port}"],
            port,
            cores=usable(),
            folder=folder,
            environ=environ,
        ):
            yield here, port
    finally:
        here.end()


def row(found: dict[str, Any]) -> str:
    """Write one row of the table."""
    lost = ", ".join(f"{count} {what}" for what, count in found["lost"].items()) or "0"
    waits = [f"{found[f'{name}_ms']:,.0f}" for name in ("p50_before", "p50")]
    waits += [f"{found[f'{name}_ms']:,.0f}" for name in ("p99_before", "p99")]
    times = [found["noticed_s"], found["back_s"]]
    said = ["" if each is None else f"{each:.2f} s" for each in times]
    cells = [found["name"], f"{found['calls']:,}", lost, *waits, *said]
    return f"| {' | '.join(cells)} |"


HEAD = (
    "| What happens | Calls | Failed | p50 before, ms | p50 then, ms | p99 before, ms "
    "| p99 then, ms | Noticed after | Work again after |\n"
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
)


def main(arguments: Sequence[str]) -> None:
    """Play, print, and write the table if asked to."""
    parser = argparse.ArgumentParser(prog="python -m bench.faults")
    parser.add_argument("--only", default="", help="rows with this in their names")
    parser.add_argument("--write", action="store_true", help="into docs")
    options = parser.parse_args(arguments)
    rows = []
    for fault in FAULTS:
        if options.only in fault.name:
            with (
                tempfile.TemporaryDirectory() as name,
                proxied(fault, Path(name)) as (here, port),
            ):
                rows.append(asyncio.run(play(fault, here, port)))
            sys.stderr.write(row(rows[-1]) + "\n")
    table = HEAD + "\n".join(map(row, rows))
    sys.stdout.write(table + "\n")
    if options.write:
        machine = describe("bench.faults", share_out(usable()))
        machine["placed"] = "all share the cores"
        document = {"machine": machine, "rows": rows}
        JSON.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        text = DOCUMENT.read_text(encoding="utf-8")
        DOCUMENT.write_text(replaced(text, table, MAKER), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
