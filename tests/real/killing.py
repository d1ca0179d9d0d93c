"""
Two of a server behind one abproxy: one is killed under load, and started again.

A call is lost if it was sent and not answered with 200.
"""

import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

from attrs import frozen

from deploy.balancing import JSON, Load, free_port
from real import running
from real.between import proxy
from real.running import CannotRun
from real.serving import Server

__all__ = ["Killed", "run"]

CLIENTS = 8
"""Servers and clients share two cores."""

TIMES = 2

SETTLED_S = 3.0
"""For how long there is load before, between and after."""


@frozen(kw_only=True)
class Killed:
    """How it went."""

    times: int
    """How often one was killed and came back."""

    calls: int
    lost: int
    lost_as: Mapping[str, int]
    """What was answered instead, and how often."""


def run(server: Server, folder: Path) -> Killed:
    """
    Kill one of two under load, start it again, and count what was lost.

    Raises:
        CannotRun: no call was answered.
    """
    port = free_port()
    with ExitStack() as stack:
        stays = stack.enter_context(server.serve(folder / "stays"))
        first = stack.enter_context(ExitStack())
        killed = first.enter_context(server.serve(folder / "killed", port))
        way = stack.enter_context(
            proxy(folder / "abproxy", INFERENCE_SERVICE_URL=f"{stays},{killed}")
        )
        load = _load(server, way.url)
        with load.running():
            for at in range(TIMES):
                time.sleep(SETTLED_S)
                running.kill(killed)
                time.sleep(SETTLED_S)
                first.close()
                again = server.serve(folder / f"again {at}", port)
                first.enter_context(again)
            time.sleep(SETTLED_S)
    answered = sum(load.answers.values())
    if not answered:
        raise CannotRun(f"no call was answered: {load.failed}")
    return Killed(
        times=TIMES,
        calls=answered + sum(load.lost.values()),
        lost=sum(load.failed.values()),
        lost_as=load.failed,
    )


def _load(server: Server, url: str) -> Load:
    dialect = server.dialects[0]
    return Load(
        port=urlsplit(url).port or 0,
        clients=CLIENTS,
        path=dialect.path,
        body=lambda text: {**dialect.fixed, dialect.member: text},
        header={**JSON, **dialect.header},
    )
