"""Each step of a start fails, at once or later: the process ends, with one line."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.logger import LogLevel, capturedLogs, formatEvent

from abproxy.service.lifetime import Lifetime, ProcessContext
from abproxy.service.proxy import Listening
from abproxy.settings.settings import Settings
from abproxy.wiring import wire
from abproxy.workers import supervisor
from abproxy.workers.wiring import wire_supervisor
from support.proxy import Reactor

NO_ROOM = OSError("no room")


@define(eq=False)
class Step:
    """A step that fails, at once or when the test says so."""

    fails_at_once: bool
    waiting: "Deferred[None]" = field(factory=Deferred)

    def __call__(self, *_: Any, **_more: Any) -> "Deferred[None]":
        """Be the step."""
        if self.fails_at_once:
            raise NO_ROOM
        return self.waiting

    listen = start = stop = __call__


class Works(Step):
    """A step that is done at once."""

    def __call__(self, *_: Any, **_more: Any) -> "Deferred[None]":
        done: Deferred[None] = Deferred()
        done.callback(None)
        return done

    listen = start = stop = __call__


@pytest.fixture
def codes() -> list[int]:
    """Give the exit codes that were set."""
    return []


@pytest.fixture
def process(codes: list[int]) -> ProcessContext:
    """Make the process of a service."""
    return ProcessContext(end_with=codes.append)


def _listening(service: Any, step: Any) -> Listening:
    service.public.listener.close()
    return Listening(listener=step, site=service.site)


def _operations(service: Any, step: Any) -> None:
    service.private = _listening(service, step)


def _model(service: Any, step: Any) -> None:
    service.model = step


def _upstream(service: Any, step: Any) -> None:
    service.start_models = step


def _clients(service: Any, step: Any) -> None:
    service.public = _listening(service, step)


ONE_PROCESS: list[Callable[[Any, Any], None]] = [_operations, _model, _clients]


def _run(service: Lifetime, step: Step) -> list[str]:
    """Start it, let its step fail, and return what it says of that."""
    network: Any = service.reactor
    with capturedLogs() as events:
        service.startService()
        network.run()
        if not step.fails_at_once:
            assert network.running
            step.waiting.errback(NO_ROOM)
    assert "log_failure" not in {name for event in events for name in event}
    return [formatEvent(each) for each in events if each["log_level"] >= LogLevel.error]


@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "later"])
@pytest.mark.parametrize("put", ONE_PROCESS)
def test_a_proxy_whose_start_fails_ends(
    put: Callable[[Any, Any], None],
    process: ProcessContext,
    codes: list[int],
    *,
    at_once: bool,
) -> None:
    """It would live on, and answer nothing: no supervisor notices that."""
    service: Any = wire(Settings(port="0"), Reactor(), process=process)
    step = Step(at_once)
    put(service, step)

    said = _run(service, step)

    assert said == ["Cannot start: no room"]
    assert codes == [1]
    assert not service.reactor.running
    if put is not _clients:
        service.public.listener.close()


def test_a_proxy_that_cannot_ask_its_upstream_ends(
    process: ProcessContext, codes: list[int]
) -> None:
    """A bug, perhaps, but no reason to stay."""
    service: Any = wire(Settings(port="0"), Reactor(), process=process)
    step = Step(fails_at_once=True)
    _upstream(service, step)

    said = _run(service, step)

    assert (said, codes) == (["Cannot start: no room"], [1])
    assert not service.reactor.running
    service.public.listener.close()


@pytest.fixture
def supervising(process: ProcessContext, tmp_path: Path) -> Iterator[Any]:
    """Wire a supervisor, whose workers are never started."""
    settings = Settings(workers=2, port="0")
    service: Any = wire_supervisor(settings, Reactor(), Settings, process)
    service.folder = tmp_path / "sockets"
    yield service
    service.shared_port.close()


@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "later"])
@pytest.mark.parametrize("name", ["private", "operations", "model", "pool"])
def test_a_supervisor_whose_start_fails_ends(
    supervising: Any,
    codes: list[int],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    *,
    at_once: bool,
) -> None:
    """Whichever of its parts it is."""
    step = Step(at_once)
    private = step if name == "private" else Works(fails_at_once=False)
    monkeypatch.setattr(supervisor, "listen_in_folder", lambda *_: private)
    monkeypatch.setattr(supervisor, "where", lambda _: "")
    if name == "pool":
        supervising.pool = _Pool(supervising.pool, step)
    elif name != "private":
        setattr(supervising, name, step)

    said = _run(supervising, step)

    assert (said, codes) == (["Cannot start: no room"], [1])
    assert not supervising.reactor.running


class _Pool:
    """Workers that do not start."""

    def __init__(self, pool: Any, step: Step) -> None:
        self.start, self.end, self._pool = step, pool.end, pool

    def __iter__(self) -> Any:
        return iter(self._pool)


@pytest.mark.parametrize("name", ["mkdir", "file", "socket"])
def test_a_supervisor_without_a_folder_for_its_sockets_ends(
    supervising: Any, codes: list[int], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """As on a disk that cannot be written."""

    def fail(*_: Any) -> None:
        raise NO_ROOM

    if name == "mkdir":
        supervising.folder = supervising.folder / "not" / "there"
    elif name == "file":
        monkeypatch.setattr(supervisor.ConnectionCounts, "at", fail)
    else:
        monkeypatch.setattr(supervisor, "listen_in_folder", fail)

    [said] = _run(supervising, Step(fails_at_once=True))

    assert said.startswith("Cannot start: WORKERS needs a folder for sockets: ")
    assert said.endswith("set TMPDIR to one that can be written and has a short path")
    assert codes == [1]
    assert not supervising.reactor.running
