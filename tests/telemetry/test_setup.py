"""Which observers there are, as the operator wants them, and how they end."""

import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import Any

import msgspec
import pytest
from attrs import define, evolve, field
from pytest_twisted import ensureDeferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.web.http_headers import Headers

from abproxy.errors import ProxyError, SettingsError
from abproxy.events import Observer, RequestInfo
from abproxy.http.messages import HeaderList, UpstreamRequest
from abproxy.telemetry.setup import LAST_SPANS_S, Telemetry, make_telemetry
from support.proxy import Reactor, wired
from support.upstream import RecordingUpstream, make_upstream, reply

REQUEST = UpstreamRequest(path=b"/embed", headers=(), body=b"")


FOLLOWED = reply(200, b"followed")


@define(eq=False)
class Traces(Observer):
    """A tracing that only marks what it is given."""

    shut_down: Callable[[], Any] = field(default=lambda: None)
    answered: list[ProxyError] = field(factory=list)

    def answered_with(self, error: ProxyError, model: str = "") -> None:  # noqa: ARG002
        self.answered.append(error)

    def trace(self, request: UpstreamRequest, *_about: Any) -> Any:
        """Follow what is sent."""
        return request, lambda _: FOLLOWED

    def relay(self, _request: Any, headers: HeaderList, _base_url: str) -> Any:
        """Put on a mark."""
        return (*headers, (b"traceparent", b"ours")), lambda found: found


def _telemetry(reactor: Any, tracing: Traces) -> Telemetry:
    return evolve(make_telemetry(reactor), tracing=tracing)


def refusal(**settings: Any) -> str:
    """Return why telemetry cannot be as the operator wants it."""
    with pytest.raises(SettingsError) as caught:
        make_telemetry(Clock(), **settings)
    return str(caught.value)


def test_by_default_only_figures_are_kept() -> None:
    """Nothing is written for a request, and there is no span of it."""
    telemetry = make_telemetry(Clock())

    assert telemetry.access_log is None
    assert telemetry.tracing is None
    assert telemetry.trace_relayed is None


def test_what_is_sent_is_metered() -> None:
    """The way upstream has a meter in it."""
    with wired() as here:
        here.inference_server.send(REQUEST)
        here.upstream.open[0].refuse(200)

        assert here.recorder.totals().requests == 1


def test_traces_are_followed_on_all_ways() -> None:
    """Requests of clients, batches, and what is relayed."""
    traces, upstream = Traces(), RecordingUpstream()
    telemetry = _telemetry(Clock(), traces)
    heard: list[object] = []

    sent = make_upstream(
        upstream.send, observer=telemetry.observer, trace=telemetry.trace
    ).send(REQUEST)
    sent.addCallback(heard.append)
    upstream.open[0].refuse(200)

    telemetry.observer.answered_with(error := ProxyError("ours"))
    assert traces.answered == [error]
    assert telemetry.recorder.totals().failed == 1
    assert telemetry.trace_relayed == traces.relay
    assert heard == [FOLLOWED]
    assert telemetry.recorder.totals().requests == 1


def test_an_access_log_is_written_from_the_first_request_on(tmp_path: Path) -> None:
    """Line by line, so that a reader sees whole lines."""
    file = tmp_path / "access.log"
    with wired(access_log=str(file)) as here:
        here.ask("GET", "/elsewhere")

        assert file.read_text().endswith('"GET /elsewhere HTTP/1.1" 200 5 "-" "-"\n')


def test_an_access_log_is_json_if_the_log_is(tmp_path: Path) -> None:
    """Both may go to the same place."""
    file = tmp_path / "access.log"
    with wired(access_log=str(file), log_format="json") as here:
        here.ask("GET", "/elsewhere")

        assert msgspec.json.decode(file.read_text())["path"] == "/elsewhere"


def test_an_access_log_goes_on_where_it_was(tmp_path: Path) -> None:
    """A restart forgets nothing."""
    file = tmp_path / "access.log"
    file.write_text("before\n")
    with wired(access_log=str(file)) as here:
        here.ask("GET", "/elsewhere")

    first, second = file.read_text().splitlines()
    assert first == "before"
    assert "/elsewhere" in second


def test_an_access_log_may_go_to_standard_output(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As containers like it."""
    with wired(access_log="-") as here:
        here.ask("GET", "/elsewhere")
        here.telemetry.reopen()
        here.ask("GET", "/once/more")

    written = capsys.readouterr().out
    assert "/elsewhere" in written
    assert "/once/more" in written


def test_an_access_log_that_was_moved_away_is_opened_anew(tmp_path: Path) -> None:
    """That is how it is rotated."""
    file = tmp_path / "access.log"
    with wired(access_log=str(file)) as here:
        here.ask("GET", "/old")
        file.rename(tmp_path / "access.log.1")

        here.telemetry.reopen()
        here.ask("GET", "/new")

    assert "/new" in file.read_text()
    assert "/old" not in file.read_text()


def test_without_an_access_log_there_is_none_to_open_anew() -> None:
    """SIGHUP also means other things."""
    telemetry = make_telemetry(Clock())

    telemetry.reopen()

    assert telemetry.access_log is None


def test_an_access_log_that_cannot_be_written_is_a_mistake(tmp_path: Path) -> None:
    """It is found out at the start, and not at the first request."""
    nowhere = str(tmp_path / "no/access.log")

    assert refusal(access_log=nowhere) == (
        f"ACCESS_LOG: cannot write to {nowhere}: No such file or directory"
    )
    assert refusal(access_log=str(tmp_path)) == (
        f"ACCESS_LOG: cannot write to {tmp_path}: Is a directory"
    )


def test_traces_that_are_not_installed_are_a_mistake(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The message says how to get them."""
    monkeypatch.setitem(sys.modules, "abproxy.telemetry.tracing", None)

    assert refusal(traces_endpoint="http://127.0.0.1:4318") == (
        "traces are to be sent (OTEL_EXPORTER_OTLP_ENDPOINT), which needs more: "
        "pip install 'abproxy[tracing]'"
    )


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    """Have Python's own logging as it was, also afterwards."""
    root = logging.getLogger()
    before = list(root.handlers)
    yield root
    root.handlers[:] = before


def test_traces_that_are_wanted_are_made(root_logger: logging.Logger) -> None:
    """And what their library has to say is heard in our log."""
    before = len(root_logger.handlers)

    telemetry = make_telemetry(Clock(), traces_endpoint="http://127.0.0.1:1")
    request = RequestInfo(method=b"GET", target=b"/", headers=Headers())
    telemetry.observer.request_began(request)
    telemetry.tracing.shut_down()

    assert request.trace is not None
    assert len(root_logger.handlers) == before + 1


def test_without_traces_nothing_is_left_to_send() -> None:
    """Stopping takes no time."""
    stopped: list[None] = []

    make_telemetry(Clock()).stop().addCallback(stopped.append)

    assert stopped == [None]


@ensureDeferred
async def test_the_last_spans_are_sent_before_the_end() -> None:
    """In a thread, as the library blocks."""
    from twisted.internet import reactor  # noqa: PLC0415  not before it is chosen

    sent = Event()

    await _telemetry(reactor, Traces(sent.set)).stop()

    assert sent.is_set()


class Waiting(Reactor):
    """A reactor that shows when a thread has called it."""

    def __init__(self) -> None:
        super().__init__()
        self.is_back = Event()

    def callFromThread(self, callback: Any, *arguments: Any) -> None:  # noqa: N802
        """Call, and say so."""
        super().callFromThread(callback, *arguments)
        self.is_back.set()


def test_a_collector_that_is_away_does_not_keep_the_proxy() -> None:
    """After a few seconds it ends without the last spans, and says so."""
    reactor, collector = Waiting(), Event()
    stopped: list[None] = []

    _telemetry(reactor, Traces(collector.wait)).stop().addCallback(stopped.append)
    reactor.advance(LAST_SPANS_S - 0.1)
    early = list(stopped)
    with capturedLogs() as events:
        reactor.advance(0.1)
    collector.set()

    assert reactor.is_back.wait(timeout=10)
    assert early == []
    assert stopped == [None]
    assert [formatEvent(event) for event in events] == ["The last spans were not sent"]


@pytest.mark.parametrize(
    ("name", "owner", "given"),
    [
        ("access.log", (65534, -1), [65534, -1]),
        ("access.log", (-1, -1), []),
        ("/dev/null", (65534, 65534), []),
    ],
)
def test_the_access_log_belongs_to_the_user_that_opens_it_again(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    owner: tuple[int, int],
    given: list[int],
) -> None:
    """With `twistd --uid` it is made as root; devices are left as they are."""
    changed: list[Any] = []
    monkeypatch.setattr("os.chown", lambda *change: changed.extend(change))
    file = str(tmp_path / name)

    telemetry = make_telemetry(Reactor(), access_log=file, owner=owner)
    log: Any = telemetry.access_log
    log._file.close()

    assert changed == ([file, *given] if given else [])


def test_an_access_log_stays_in_the_folder_that_its_name_began_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`twistd --rundir` changes the folder after the start; SIGHUP opens it again."""
    started, running = tmp_path / "started", tmp_path / "running"
    for folder in (started, running):
        folder.mkdir()
    monkeypatch.chdir(started)
    with wired(access_log="access.log") as here:
        monkeypatch.chdir(running)
        (started / "access.log").rename(started / "former.log")
        here.telemetry.reopen()
        here.ask("GET", "/elsewhere")

    assert (started / "access.log").read_text().count("\n") == 1
    assert not [*running.iterdir()]
