"""Inference servers at addresses of this machine, as processes that are killed."""

import json
import os
import signal
import subprocess
import sys
import time
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from attrs import define, field

from bench.wire.contestants import ROOT
from bench.wire.errors import CannotMeasure
from bench.wire.processes import is_healthy

__all__ = ["NAME", "Servers"]

NAME = "tei"
OK = 200
READY_S = 20.0
COSTS = ("--ms=20", "--ms-per-input=1", "--workers=8")


@define(eq=False)
class Servers:
    """All that were started, by the last number of their addresses."""

    port: int
    folder: Path
    _running: dict[int, "subprocess.Popen[bytes]"] = field(init=False, factory=dict)

    @property
    def names(self) -> Path:
        """The file that says which addresses the name has."""
        return self.folder / "names.json"

    def name(self, *numbers: int) -> None:
        """Let the name have the addresses of these servers."""
        new = self.folder / "new.json"
        new.write_text(json.dumps({NAME: [address(each) for each in numbers]}))
        new.replace(self.names)

    def start(self, number: int, *options: str) -> None:
        """Start one; it answers when this returns."""
        place = (f"--ip={address(number)}", f"--port={self.port}")
        self._running[number] = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "bench.breakable", *place, *COSTS, *options],
            cwd=self.folder,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
        )
        give_up_at = time.monotonic() + READY_S
        while not is_healthy(self.port, address(number)):
            if time.monotonic() > give_up_at:
                raise CannotMeasure(f"the server at {address(number)} does not answer")
            time.sleep(0.02)

    def kill(self, number: int) -> None:
        """End one as a machine that is gone does."""
        ended = self._running.pop(number)
        ended.kill()
        ended.wait()

    def pause(self, number: int) -> None:
        """Let one accept connections, and answer nothing."""
        self._running[number].send_signal(signal.SIGSTOP)

    def go_on(self, number: int) -> None:
        """Let it answer again."""
        self._running[number].send_signal(signal.SIGCONT)

    def tell(self, number: int, command: str, **about: Any) -> None:
        """Tell one what to do, as `bench.breakable` takes it."""
        connection = HTTPConnection(address(number), self.port, timeout=5)
        connection.request("POST", f"/-/{command}", json.dumps(about))
        status = connection.getresponse().status
        connection.close()
        if status != OK:
            raise CannotMeasure(f"{command} is not understood")

    def end(self) -> None:
        """End all of them."""
        for number in [*self._running]:
            self.kill(number)


def address(number: int) -> str:
    """Return the address of a server."""
    return f"127.0.0.{10 + number}"
