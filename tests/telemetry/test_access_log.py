"""One line for each request, if the operator wants it."""

import re
from collections.abc import Iterator
from errno import ENOSPC
from io import StringIO
from pathlib import Path

import msgspec
import pytest
from attrs import define, evolve, field
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent

from abproxy.errors import UpstreamTimeout
from abproxy.telemetry.access_log import AccessLog
from support.client import Client
from support.proxy import InMemoryProxy, wired

COMBINED = re.compile(
    r'(?P<client>\S+) - - \[(?P<time>[^\]]+)\] "(?P<asked>(?:[^"\\]|\\x\w\w)*)" '
    r"(?P<status>\d{3}) (?P<bytes>\d+|-) "
    r'"(?P<referer>(?:[^"\\]|\\x\w\w)*)" "(?P<agent>(?:[^"\\]|\\x\w\w)*)"\n'
)
"""The Combined Log Format, as programs that count visitors read it."""


@define(eq=False)
class Logged:
    """A proxy whose requests are logged."""

    proxy: InMemoryProxy
    file: StringIO = field(factory=StringIO)

    def write(self, *, as_json: bool = False) -> None:
        """Begin to write."""
        access_log = AccessLog(
            open_file=lambda: self.file, as_json=as_json, clock=self.proxy.clock
        )
        telemetry = evolve(self.proxy.telemetry, access_log=access_log)
        self.proxy.service.site.observer = telemetry.observer

    @property
    def line(self) -> "re.Match[str]":
        """The one line."""
        found = COMBINED.fullmatch(self.file.getvalue())
        assert found is not None, self.file.getvalue()
        return found

    @property
    def objects(self) -> list[dict[str, object]]:
        """The lines as JSON objects."""
        return [msgspec.json.decode(line) for line in self.file.getvalue().splitlines()]


@pytest.fixture
def here() -> Iterator[Logged]:
    """Wire a proxy that writes the Combined Log Format."""
    with wired() as proxy:
        logged = Logged(proxy)
        logged.write()
        yield logged


@pytest.fixture
def as_json() -> Iterator[Logged]:
    """Wire a proxy that writes JSON."""
    with wired() as proxy:
        logged = Logged(proxy)
        logged.write(as_json=True)
        yield logged


def _ask(here: Logged, path: str, *headers: tuple[str, str]) -> Client:
    client = here.proxy.connect()
    client.embed(b'{"inputs":"a"}', *headers, path=path)
    here.proxy.answer_all()
    return client


def test_a_request_is_a_line_in_the_combined_log_format(here: Logged) -> None:
    """When it is over, with all that there is to say."""
    client = here.proxy.connect()
    client.embed(
        b'{"inputs":"a"}', ("Referer", "http://page/"), ("User-Agent", "curl/8")
    )
    here.proxy.clock.advance(1.5)
    early = here.file.getvalue()
    here.proxy.answer_all()

    [answer] = client.answers()
    assert early == ""
    assert here.line.groupdict() == {
        "client": "192.168.1.1",
        "time": "14/Nov/2023:22:13:21 +0000",
        "asked": "POST /embed HTTP/1.1",
        "status": "200",
        "bytes": str(len(answer.body)),
        "referer": "http://page/",
        "agent": "curl/8",
    }


def test_what_is_not_known_is_a_dash(here: Logged) -> None:
    """As that format has it."""
    here.proxy.ask("HEAD", "/-/healthy")

    assert here.line["bytes"] == "-"
    assert here.line["referer"] == "-"
    assert here.line["agent"] == "-"


def test_a_client_who_left_is_a_line_with_499(here: Logged) -> None:
    """Nothing was answered, and the server did not fail."""
    here.proxy.call("a").leave()

    assert here.line["status"] == "499"
    assert here.line["bytes"] == "-"


def test_a_query_is_left_out(here: Logged) -> None:
    """Keys have been seen there; also in that of the page that one comes from."""
    _ask(here, "/embed?api_key=secret", ("Referer", "http://page/?token=secret"))

    assert here.line["asked"] == "POST /embed HTTP/1.1"
    assert here.line["referer"] == "http://page/"
    assert "secret" not in here.file.getvalue()


@pytest.mark.parametrize(
    ("sent", "written"),
    [
        ('curl" 200 1 "', r"curl\x22 200 1 \x22"),
        ("back\\slash", r"back\x5cslash"),
        ("tab\there", r"tab\x09here"),
        ("umläut", r"uml\xc3\xa4ut"),
        ("escape\x1b[31m", r"escape\x1b[31m"),
    ],
)
def test_no_client_can_write_a_line_of_its_own(
    here: Logged, sent: str, written: str
) -> None:
    """What could end a field, or fool a terminal, is spelled out."""
    client = here.proxy.connect()
    head = f"GET /-/healthy HTTP/1.1\r\nHost: door\r\nUser-Agent: {sent}\r\n\r\n"

    client.send(head.encode())

    assert here.line["agent"] == written


def test_a_line_of_json_is_an_object(as_json: Logged) -> None:
    """With what only machines want to know."""
    client = as_json.proxy.connect()
    client.embed(b'{"inputs":"a"}', ("X-Request-Id", "mine"), path="/embed?q=1")
    as_json.proxy.clock.advance(0.25)
    as_json.proxy.answer_all()

    [answer] = client.answers()
    assert as_json.objects == [
        {
            "time": "2023-11-14T22:13:20.250000+00:00",
            "logger": "access",
            "client": "192.168.1.1",
            "method": "POST",
            "path": "/embed",
            "status": 200,
            "bytes": len(answer.body),
            "duration_ms": 250.0,
            "route": "/embed",
            "user_agent": "-",
            "request_id": "mine",
        }
    ]


def test_a_request_without_a_name_is_written_with_the_one_it_was_given(
    as_json: Logged,
) -> None:
    """So that its error can be found in the log."""
    client = as_json.proxy.connect()
    client.embed(b'{"inputs":"a"}')
    as_json.proxy.upstream.open[0].fail(UpstreamTimeout("too slow"))

    [answer] = client.answers()
    [line] = as_json.objects
    assert line["request_id"] == answer.header("X-Request-Id")


def test_the_route_says_who_answered(as_json: Logged) -> None:
    """A batch, the upstream alone, or we ourselves."""
    _ask(as_json, "/v1/embeddings")
    as_json.proxy.ask("GET", "/-/healthy")

    told = [line["route"] for line in as_json.objects]
    assert told == ["relayed", None]


def test_a_client_without_an_address_is_a_dash(here: Logged) -> None:
    """Behind a UNIX socket no client has one."""
    client = here.proxy.connect(address=UNIXAddress(None))

    client.ask("GET", "/-/healthy")

    assert here.line["client"] == "-"


def test_the_clients_address_is_that_of_its_connection(here: Logged) -> None:
    """What it says of itself could be a lie."""
    client = here.proxy.connect(address=IPv4Address("TCP", "10.1.2.3", 4))

    client.ask("GET", "/-/healthy", b"", ("X-Forwarded-For", "1.2.3.4"))

    assert here.line["client"] == "10.1.2.3"


@define(eq=False)
class Disk:
    """Takes lines as long as there is room."""

    text: str = ""
    is_full: bool = False

    def write(self, text: str) -> None:
        """Keep them until they are to be written."""
        self.text += text

    def flush(self) -> None:
        """Write them."""
        if self.is_full:
            raise OSError(ENOSPC, "No space left on device")

    def close(self) -> None:
        """Write what is left."""
        self.flush()


@pytest.fixture
def disk(here: Logged) -> Iterator[Disk]:
    """Write the log to a disk."""
    disk = Disk()
    here.file = disk  # type: ignore[assignment]
    here.write()
    yield disk
    disk.is_full = False


def test_a_full_disk_is_told_of_once(here: Logged, disk: Disk) -> None:
    """And calls are answered as ever."""
    disk.is_full = True

    with capturedLogs() as events:
        clients = [_ask(here, "/embed") for _ in range(3)]

    [event] = events
    assert formatEvent(event).startswith("Requests are missing in the access log: ")
    assert formatEvent(event).endswith("No space left on device")
    assert [client.answers()[0].status for client in clients] == [200] * 3


def test_a_disk_that_is_full_again_is_told_of_again(here: Logged, disk: Disk) -> None:
    """There was room in between, and it should be said that it was not enough."""
    with capturedLogs() as events:
        disk.is_full = True
        _ask(here, "/embed")
        disk.is_full = False
        _ask(here, "/embed")
        disk.is_full = True
        _ask(here, "/embed")

    assert len(events) == 2


def test_lines_go_into_a_new_file_though_the_old_disk_is_full() -> None:
    """A log is moved away because of that."""
    disks = [Disk(is_full=True), Disk()]
    left = iter(disks)
    log = AccessLog(open_file=lambda: next(left), as_json=False, clock=Clock())

    log.reopen()
    log._file.write("new\n")

    assert [disk.text for disk in disks] == ["", "new\n"]


def _into(file: Path) -> AccessLog:
    def open_file() -> object:
        return file.open("a", buffering=1)

    return AccessLog(open_file=open_file, as_json=False, clock=Clock())


def test_after_a_rotation_lines_go_into_a_new_file(tmp_path: Path) -> None:
    """And the old one is let go."""
    file, old = tmp_path / "log", tmp_path / "log.1"
    log = _into(file)
    former = log._file

    file.rename(old)
    log.reopen()
    log._file.write("new\n")

    assert former.closed
    assert file.read_text() == "new\n"
    assert old.read_text() == ""
    log._file.close()


def test_if_there_is_no_new_file_lines_go_into_the_old_one(tmp_path: Path) -> None:
    """One line in the log says why, and nothing is lost."""
    folder, moved = tmp_path / "folder", tmp_path / "moved"
    folder.mkdir()
    log = _into(folder / "log")

    folder.rename(moved)
    with capturedLogs() as events:
        log.reopen()
    log._file.write("still here\n")

    [event] = events
    assert formatEvent(event).startswith(
        "Cannot reopen the access log, so it stays in its old file: "
    )
    assert "No such file or directory" in formatEvent(event)
    assert (moved / "log").read_text() == "still here\n"
    log._file.close()


def test_standard_output_is_never_closed() -> None:
    """It is not ours alone."""
    output = StringIO()
    log = AccessLog(open_file=lambda: output, as_json=False, clock=Clock())

    log.reopen()

    assert not output.closed
