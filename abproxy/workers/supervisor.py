"""The supervisor: it holds the ports, and the workers do the work."""

import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from attrs import define, field
from twisted.internet import defer
from twisted.logger import Logger

from abproxy.configure import keys_for, tls_policy_for
from abproxy.errors import SettingsError
from abproxy.reload import merge, read_again
from abproxy.service.lifetime import Lifetime
from abproxy.service.proxy import LAST_S
from abproxy.settings.settings import Settings, settings_of
from abproxy.settings.watching import KeyWatch
from abproxy.web.closing import close_port
from abproxy.web.listen import Listener, where
from abproxy.web.server import ProxySite, ServerLimits
from abproxy.workers.admin import SupervisorApp
from abproxy.workers.aggregate import Aggregator
from abproxy.workers.control import END, END_AFTER_DELAY
from abproxy.workers.ipc import (
    COUNTS,
    SUPERVISOR,
    explain_folder_errors,
    listen_in_folder,
)
from abproxy.workers.process import WorkerPool
from abproxy.workers.shares import share_of
from abproxy.workers.sockets import ConnectionCounts, SharedPort

__all__ = ["Supervisor", "check_files", "own_limits"]


def own_limits(settings: Settings) -> ServerLimits:
    """Return what operators may send to the supervisor."""
    return ServerLimits(
        is_batched=lambda *_: False,
        max_body_bytes=settings.max_body_bytes,
        max_connections=settings.max_connections,
        request_timeout_s=settings.request_timeout_s,
        keep_alive_s=settings.client_keep_alive_s,
    )


def check_files(settings: Settings) -> None:
    """
    Read the files for TLS towards each upstream: what makes the models is elsewhere.

    Raises:
        SettingsError: they cannot be used.
    """
    tables = settings.models.tables if settings.models else ()
    for table in tables:
        tls_policy_for(settings_of(settings, table))
    if not tables:
        tls_policy_for(settings)


@define(kw_only=True, eq=False)
class Supervisor(Lifetime):
    """Start, drain and stop of all workers."""

    settings: Settings
    """Those of all workers together."""

    read: Callable[[], Settings] = field(repr=False)
    pool: WorkerPool
    aggregator: Aggregator
    shared_port: SharedPort
    """The port of the clients."""

    folder: Path
    """Where the private sockets are."""

    operations: Listener | None
    """The port of the operators, if they have one of their own."""

    app: SupervisorApp
    site: ProxySite
    """What the supervisor itself answers."""

    _counts: ConnectionCounts | None = field(init=False, default=None)
    _ports: list[Any] = field(init=False, factory=list)
    _is_ending: bool = field(init=False, default=False)
    _log: ClassVar[Logger] = Logger()

    def __attrs_post_init__(self) -> None:
        """Watch for the end of each worker, and for new keys."""
        watch = KeyWatch(settings=lambda: self.settings, apply=self.apply)
        self.look_at_keys = watch.look
        for worker in self.pool:
            worker.on_end = self._worker_ended

    def _worker_ended(self, name: str) -> None:
        self.aggregator.worker_ended(name)
        if self._counts is not None:
            self._counts.remove(name)

    def _listen_to_signals(self) -> None:
        self.signals.on_hangup(self._reload_and_notify, self._end)
        self.signals.on(signal.SIGINT, self._end)
        self.signals.on(signal.SIGTERM, partial(self._end, END_AFTER_DELAY))

    def _end(self, word: bytes = END) -> None:
        super()._end()
        self._end_workers(word)

    def _end_workers(self, word: bytes) -> None:
        """Pass on that the end is wanted; workers know what a second time means."""
        self._is_ending = True
        # The workers keep it open for as long as they accept.
        self.shared_port.close()
        self.pool.end(word)

    def _reload(self) -> None:
        try:
            wanted = read_again(self.read, self.settings)
            change = merge(self.settings, wanted)
            if change.settings.models is not None:
                # A worker that is started later would not get over it.
                check_files(change.settings)
        except SettingsError as error:
            self._log.error("Settings stay as they are: {error}", error=error)
            return
        self.apply(change.settings)
        # The workers say what changes.
        for line in change.left:
            self._log.warn("{line}", line=line)

    def apply(self, settings: Settings) -> None:
        """Apply *settings* here and in all workers."""
        self.settings = settings
        self.process.set_log_level(settings.log_level)
        self.site.set_limits(own_limits(settings))
        self.app.keys = keys_for(settings)
        self.app.relay.timeout_s = settings.upstream_timeout_s
        self.aggregator.settings = settings
        self.pool.send(share_of(settings, self.upstream_url))

    async def _start(self) -> None:
        with explain_folder_errors():
            self.folder.mkdir(mode=0o700)
            self._counts = ConnectionCounts.at(
                self.folder / COUNTS, self.settings.workers
            )
            private = listen_in_folder(self.reactor, self.folder, SUPERVISOR)
        for worker in self.pool:
            self._counts.remove(worker.name)
        self._ports.append(await private.listen(self.site))
        if self.operations is not None:
            port = await self.operations.listen(self.site)
            self._ports.append(port)
            self._log.info("Operations are on {at}/-/", at=where(port))
        if self.model is not None:
            await self.model.start()
        await self.pool.start()
        self._log.info(
            "abproxy answers on {address} with {n} workers; inference server: {url}",
            address=self.shared_port.address,
            n=self.settings.workers,
            url=self.settings.models or self.upstream_url,
        )

    async def _stop(self) -> None:
        if self._starting is not None:
            self._starting.cancel()
        if not self._is_ending:
            self._end_workers(END)
        await self.pool.stop()
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
