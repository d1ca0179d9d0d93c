"""
The foreman: it holds the ports, and the workers do the work.

It closes its own hold of the clients' port before the workers do: a connection
that nobody is going to accept is refused, not left waiting.
"""

import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import attrs
from attrs import define, field
from twisted.internet import defer
from twisted.logger import Logger

from abproxy.chosen import keys_for
from abproxy.lifetime import Lifetime
from abproxy.reloading import CHANGEABLE, read_again
from abproxy.service import LAST_S, where
from abproxy.settings import Settings, SettingsError
from abproxy.web.listen import Listener, close_port
from abproxy.web.site import ProxySite
from abproxy.workers.counts import Counts
from abproxy.workers.crew import WorkerPool
from abproxy.workers.door import ForemanDoor
from abproxy.workers.entrance import SharedPort
from abproxy.workers.private import COUNTS, FOREMAN, listen_in, needs_place
from abproxy.workers.sharing import share_of

__all__ = ["Supervisor"]


@define(kw_only=True, eq=False)
class Supervisor(Lifetime):
    """All workers between SIGTERM and the day they were started."""

    settings: Settings
    """Those of all together."""

    read: Callable[[], Settings] = field(repr=False)
    crew: WorkerPool
    entrance: SharedPort
    """Where clients come in."""

    folder: Path
    """Where the private sockets are."""

    operations: Listener | None
    """Where operators come in, if that is apart."""

    door: ForemanDoor
    site: ProxySite
    """Where the foreman is asked."""

    _counts: Counts | None = field(init=False, default=None)
    _ports: list[Any] = field(init=False, factory=list)
    _is_told: bool = field(init=False, default=False)
    _log: ClassVar[Logger] = Logger()

    def gone(self, name: str) -> None:
        """Leave no connection to a worker that has ended."""
        if self._counts is not None:
            self._counts.forget(name)

    def _listen_to_signals(self) -> None:
        self.signals.on_hangup(self._reload, self._end)
        for number in (signal.SIGTERM, signal.SIGINT):
            self.signals.on(number, self._end)

    def _end(self) -> None:
        super()._end()
        self._tell_all()

    def _tell_all(self) -> None:
        """Pass on that the end is wanted; what a second time means workers know."""
        self._is_told = True
        self.entrance.close()
        self.crew.end()

    def _reload(self) -> None:
        try:
            wanted = read_again(self.read, self.settings)
        except SettingsError as error:
            self._log.error("Settings stay as they are: {error}", error=error)
            return
        new = {name: getattr(wanted, name) for name in CHANGEABLE}
        self.settings = attrs.evolve(self.settings, **new)
        rest = attrs.asdict(wanted).items() - attrs.asdict(self.settings).items()
        if rest:
            names = ", ".join(sorted(name for name, _ in rest))
            self._log.warn("Settings need a restart: {names}", names=names)
        self.door.keys = keys_for(self.settings)
        self.crew.send(share_of(self.settings, self.upstream_url))

    async def _start(self) -> None:
        with needs_place():
            self.folder.mkdir(mode=0o700)
            self._counts = Counts.at(self.folder / COUNTS, self.settings.workers)
            private = listen_in(self.reactor, self.folder, FOREMAN)
        for worker in self.crew:
            self._counts.forget(worker.name)
        self._ports.append(await private.listen(self.site))
        if self.operations is not None:
            port = await self.operations.listen(self.site)
            self._ports.append(port)
            self._log.info("Operations are on {at}/-/", at=where(port))
        await self._start_model()
        await self.crew.start()
        self._log.info(
            "abproxy answers on {address} with {n} workers; inference server: {url}",
            address=self.entrance.address,
            n=self.settings.workers,
            url=self.upstream_url,
        )

    async def _stop(self) -> None:
        if self._starting is not None:
            self._starting.cancel()
        if not self._is_told:
            self._tell_all()
        await self.crew.stop(self.settings.drain_timeout_s)
        if self.model is not None:
            await self.model.stop()
        for port in self._ports:
            await close_port(self.reactor, port)
        try:
            await self.site.drain().addTimeout(LAST_S, self.reactor)
        except defer.TimeoutError:
            self.site.abort()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.signals.restore()
