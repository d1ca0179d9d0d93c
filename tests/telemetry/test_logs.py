"""How log lines look, and where they go."""

import logging
import os
import signal
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import msgspec
import pytest
from attrs import frozen
from twisted.logger import (
    FileLogObserver,
    LogEvent,
    Logger,
    LogLevel,
    globalLogPublisher,
)
from twisted.python import log as legacy
from twisted.python.failure import Failure

from abproxy.telemetry.logs import (
    forward_standard_logging,
    json_line,
    observer,
    threshold,
)

FOREGROUND = {"nodaemon": 1, "logfile": None, "logger": None, "syslog": None}


@frozen
class Secret:
    """Tells everything when it is printed."""

    key: str


def said(say: Callable[[Logger], None]) -> list[dict[str, Any]]:
    """What the log says as JSON, while *say* logs."""
    file = StringIO()
    say(Logger(namespace="here", observer=FileLogObserver(file, json_line)))
    return [msgspec.json.decode(line) for line in file.getvalue().splitlines()]


def test_a_line_of_json_says_when_how_urgent_where_and_what() -> None:
    """And has the event's own plain values beside that."""
    [line] = said(lambda here: here.warn("{n} calls, {share} cut", n=3, share=0.5))

    time = line.pop("time")
    assert time.endswith("+00:00")
    assert line == {
        "level": "warn",
        "logger": "here",
        "message": "3 calls, 0.5 cut",
        "n": 3,
        "share": 0.5,
    }


def test_an_object_is_no_value() -> None:
    """Only what the message makes of it is written."""
    [line] = said(lambda here: here.info("hello", room=Secret("key"), rooms=["key"]))

    assert line["message"] == "hello"
    assert "key" not in str(line)


def test_no_value_takes_the_place_of_what_the_line_says() -> None:
    """Whatever a library calls its own."""
    [line] = said(lambda here: here.info("hello", logger="x", time=0, a=1))

    assert (line["logger"], line["a"]) == ("here", 1)
    assert line["time"] != 0


def _fail(here: Logger) -> None:
    here.failure("That was {what}", Failure(ZeroDivisionError("a bug")), what="one")


def test_a_failure_has_its_traceback_in_the_same_line() -> None:
    """However many lines that is."""
    [line] = said(_fail)

    assert line["message"] == "That was one"
    assert line["level"] == "critical"
    assert line["traceback"].startswith("Traceback")
    assert "ZeroDivisionError: a bug" in line["traceback"]


def test_an_event_that_says_nothing_is_no_line() -> None:
    """Twisted has such events."""
    assert said(lambda here: here.info("")) == []


def test_a_failure_without_a_message_is_a_line() -> None:
    """What went wrong is said all the same."""
    file = StringIO()
    write = FileLogObserver(file, json_line)
    events: list[LogEvent] = []
    _fail(Logger(observer=events.append))

    write({**events[0], "log_format": ""})

    assert "ZeroDivisionError" in msgspec.json.decode(file.getvalue())["traceback"]


def test_an_event_of_the_older_kind_is_a_line_like_others() -> None:
    """Without what Twisted adds to it."""
    file = StringIO()
    write = FileLogObserver(file, json_line)

    globalLogPublisher.addObserver(write)
    legacy.msg("hello", system="old")
    globalLogPublisher.removeObserver(write)

    line = msgspec.json.decode(file.getvalue())
    assert set(line) == {"time", "level", "logger", "message"}
    assert line["message"] == "hello"
    assert line["level"] == "info"


@pytest.mark.parametrize("logfile", [None, "-"])
def test_in_the_foreground_lines_go_to_standard_output(
    logfile: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """As twistd would have it."""
    write = observer(
        {**FOREGROUND, "logfile": logfile}, as_json=False, enough=threshold("info")
    )
    assert write is not None

    Logger(namespace="here", observer=write).info("hello")

    assert capsys.readouterr().out.endswith(" [here#info] hello\n")


def test_lines_are_json_if_they_are_to_be(capsys: pytest.CaptureFixture[str]) -> None:
    """One object a line."""
    write = observer(FOREGROUND, as_json=True, enough=threshold("info"))
    assert write is not None

    Logger(namespace="here", observer=write).info("hello")

    assert msgspec.json.decode(capsys.readouterr().out)["message"] == "hello"


@pytest.mark.parametrize("as_json", [False, True])
def test_what_is_not_important_enough_is_no_line(
    capsys: pytest.CaptureFixture[str],
    as_json: bool,  # noqa: FBT001
) -> None:
    """The operator says where that begins."""
    write = observer(FOREGROUND, as_json=as_json, enough=threshold("warn"))
    assert write is not None
    here = Logger(observer=write)

    here.debug("too small")
    here.info("small")
    here.warn("enough")
    here.error("more")

    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert "enough" in lines[0]
    assert "more" in lines[1]


def test_attempts_to_connect_again_are_no_lines() -> None:
    """A server that is away would fill the log; that it is away is said once."""
    chats = "twisted.application._client_service"
    events = [
        {"log_level": LogLevel.info, "log_namespace": chats},
        {"log_level": LogLevel.info, "log_namespace": "abproxy"},
    ]
    enough = threshold("info")
    assert [enough(event).name for event in events] == ["no", "maybe"]


@pytest.mark.parametrize(
    "twistd",
    [
        {},
        {**FOREGROUND, "logger": "my.observer"},
        {**FOREGROUND, "syslog": 1},
    ],
    ids=["no twistd", "logger", "syslog"],
)
def test_a_log_of_twistds_own_kind_is_left_alone(
    twistd: dict[str, Any],
) -> None:
    """The operator has told twistd so, or it is not twistd."""
    assert observer(twistd, as_json=True, enough=threshold("info")) is None


@pytest.fixture
def no_rotation() -> Iterator[None]:
    """Have no handler for SIGUSR1, before and after."""
    former = signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGUSR1, former)


@frozen
class InFile:
    """A log that goes into a file, as that of a daemon does."""

    observer: Any
    file: Path

    def say(self, words: str) -> None:
        """Log *words*."""
        Logger(namespace="here", observer=self.observer).info(words)

    def close(self) -> None:
        """Let go of the file."""
        self.observer._observer._outFile.close()


def _in_file(file: Path, twistd: dict[str, Any]) -> InFile:
    return InFile(observer(twistd, as_json=False, enough=threshold("info")), file)


@pytest.mark.usefixtures("no_rotation")
def test_lines_go_into_the_file_that_twistd_was_told(tmp_path: Path) -> None:
    """In the foreground as well."""
    file = tmp_path / "my.log"
    log = _in_file(file, {**FOREGROUND, "logfile": str(file)})

    log.say("hello")
    log.close()

    assert file.read_text().endswith("[here#info] hello\n")


@pytest.mark.usefixtures("no_rotation")
def test_a_daemon_writes_into_twistds_own_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has no terminal to write to."""
    monkeypatch.chdir(tmp_path)
    log = _in_file(tmp_path / "twistd.log", {**FOREGROUND, "nodaemon": 0})

    log.say("hello")
    log.close()

    assert log.file.read_text().endswith("[here#info] hello\n")


@pytest.mark.usefixtures("no_rotation")
def test_the_file_is_rotated_on_sigusr1(tmp_path: Path) -> None:
    """As twistd's own is."""
    file = tmp_path / "my.log"
    log = _in_file(file, {**FOREGROUND, "logfile": str(file)})
    log.say("old")

    os.kill(os.getpid(), signal.SIGUSR1)
    log.say("new")
    log.close()

    assert file.read_text().endswith("[here#info] new\n")
    assert (tmp_path / "my.log.1").read_text().endswith("[here#info] old\n")


@pytest.mark.usefixtures("no_rotation")
def test_a_handler_for_sigusr1_stays(tmp_path: Path) -> None:
    """It may mean something else to another program."""
    heard: list[int] = []
    signal.signal(signal.SIGUSR1, lambda number, _frame: heard.append(number))
    file = tmp_path / "my.log"
    log = _in_file(file, {**FOREGROUND, "logfile": str(file)})

    os.kill(os.getpid(), signal.SIGUSR1)
    log.close()

    assert heard == [signal.SIGUSR1]
    assert [each.name for each in tmp_path.iterdir()] == ["my.log"]


@pytest.fixture
def forwarded() -> Iterator[list[LogEvent]]:
    """Take warnings of libraries into our log, and say what came of them."""
    events: list[LogEvent] = []
    root = logging.getLogger()
    before = list(root.handlers)
    forward_standard_logging()
    globalLogPublisher.addObserver(events.append)
    yield events
    globalLogPublisher.removeObserver(events.append)
    for handler in set(root.handlers) - set(before):
        root.removeHandler(handler)


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        (logging.WARNING, "warn"),
        (logging.ERROR, "error"),
        (logging.CRITICAL, "error"),
    ],
)
def test_a_library_that_warns_in_pythons_way_is_heard(
    forwarded: list[LogEvent], level: int, expected: str
) -> None:
    """Under its own name."""
    logging.getLogger("library").log(level, "%d spans {lost}", 3)

    [event] = forwarded
    assert event["log_namespace"] == "library"
    assert event["log_level"].name == expected
    assert json_line(event) is not None
    assert event["text"] == "3 spans {lost}"


def test_a_library_that_chats_is_not_heard(forwarded: list[LogEvent]) -> None:
    """Only what an operator should know."""
    logging.getLogger("library").info("hello")

    assert forwarded == []
