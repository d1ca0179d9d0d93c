"""
The contestants: no proxy, what one would write today, and abproxy.

All are started as a user starts them, with default settings, in front of the
same upstream, and stay until the end.
"""

import importlib.util
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from attrs import field, frozen

from bench.wire import upstream
from bench.wire.cores import Cores
from bench.wire.errors import CannotMeasure
from bench.wire.processes import Child, child, free_port

__all__ = ["ABPROXY", "AIOHTTP", "DIRECT", "NAMES", "Ground"]

ROOT = Path(__file__).parent.parent.parent
DIRECT, AIOHTTP, ABPROXY = NAMES = ("direct", "aiohttp", "abproxy")


@frozen(kw_only=True)
class Ground:
    """Where contestants are started: on which cores, in which folder."""

    cores: Cores
    folder: Path = field(converter=Path)

    def upstream(
        self, dimensions: int, takes_ms: float = 0
    ) -> AbstractContextManager[Child]:
        """Start the mock upstream; a request takes it so long."""
        port = free_port()
        command = upstream.command(port, dimensions, self.folder, takes_ms)
        return child(
            "upstream", command, port, cores=self.cores.upstream, folder=self.folder
        )

    def aiohttp(self, upstream_url: str) -> AbstractContextManager[Child]:
        """Start the yardstick."""
        missing = [name for name in ("aiohttp", "orjson") if not _is_there(name)]
        if missing:
            raise CannotMeasure(
                f"the yardstick needs {' and '.join(missing)}: pip install '.[bench]'"
            )
        port = free_port()
        command = [sys.executable, "-m", "bench.wire.yardstick"]
        return child(
            AIOHTTP,
            [*command, f"--port={port}", f"--upstream={upstream_url}"],
            port,
            cores=self.cores.proxy,
            folder=self.folder,
            environ={"PYTHONPATH": str(ROOT)},
        )

    def abproxy(
        self, upstream_url: str, settings: Mapping[str, str] = {}
    ) -> AbstractContextManager[Child]:
        """Start abproxy, by default with nothing set but the two addresses."""
        port = free_port()
        twistd = Path(sys.executable).with_name("twistd")
        where = {"PORT": str(port), "INFERENCE_SERVICE_URL": upstream_url}
        return child(
            ABPROXY,
            [twistd, "--nodaemon", "--pidfile=", "abproxy"],
            port,
            cores=self.cores.proxy,
            folder=self.folder,
            environ={**where, **settings},
        )

    @contextmanager
    def all(
        self, dimensions: int, takes_ms: float = 0
    ) -> Iterator[Mapping[str, Child]]:
        """Start all three, by name, on an upstream that a request takes so long."""
        with ExitStack() as stack:
            direct = stack.enter_context(self.upstream(dimensions, takes_ms))
            yield {
                DIRECT: direct,
                AIOHTTP: stack.enter_context(self.aiohttp(direct.url)),
                ABPROXY: stack.enter_context(self.abproxy(direct.url)),
            }


def _is_there(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
