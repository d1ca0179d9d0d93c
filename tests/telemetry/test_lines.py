"""Lines that a thread writes: none waits for it, and what is lost is counted."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from errno import ENOSPC
from pathlib import Path
from threading import Event

import pytest
from attrs import define, field

from abproxy.telemetry import lines
from abproxy.telemetry.lines import LineWriter, append_to, flush_all, lost_lines

PATIENCE_S = 10.0


@define(eq=False)
class File:
    """Takes bytes when it is let, as many at once as it is told to."""

    most: int = 1 << 20
    error: OSError | None = None
    data: bytes = b""
    may_go_on: Event = field(factory=Event)
    is_asked: Event = field(factory=Event)
    is_closed: Event = field(factory=Event)

    def write(self, data: bytes) -> int:
        """Wait as long as a pipe that is not read."""
        self.is_asked.set()
        assert self.may_go_on.wait(PATIENCE_S)
        if self.error is not None:
            raise self.error
        self.data += data[: self.most]
        return len(data[: self.most])

    def close(self) -> None:
        """Note it."""
        self.is_closed.set()


@pytest.fixture(autouse=True)
def _counting_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the figures of this process as they are."""
    monkeypatch.setattr(lines, "_lost", Counter())


@pytest.fixture
def file() -> File:
    """Make a file that takes nothing yet."""
    return File()


@pytest.fixture
def writer(file: File) -> Iterator[LineWriter]:
    """Make what writes to it."""
    writer = LineWriter("access", file, is_strict=True, collect_s=0.0)
    writer.start()
    yield writer
    file.error = None
    file.may_go_on.set()
    writer.close()
    assert file.is_closed.wait(PATIENCE_S)


def _until(happened: Callable[[], object]) -> None:
    waiting = Event()
    for _ in range(int(PATIENCE_S / 0.005)):
        if happened():
            return
        waiting.wait(0.005)
    raise AssertionError("it does not happen")


def _lost() -> int:
    return lost_lines()["access"]


def test_a_file_that_blocks_holds_up_no_line(writer: LineWriter, file: File) -> None:
    """All are written in their order when it takes some again."""
    for number in range(1000):
        writer.write(f"line {number}\n")
    early = file.data
    file.may_go_on.set()

    _until(lambda: file.data.count(b"\n") == 1000)
    assert early == b""
    assert file.data == b"".join(b"line %d\n" % number for number in range(1000))


def test_what_does_not_fit_into_the_buffer_is_lost_counted_and_said(
    writer: LineWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory does not grow as long as nothing reads."""
    monkeypatch.setattr(lines, "MOST_BYTES", 100)
    before = _lost()

    writer.write("x" * 98 + "\n")
    with pytest.raises(OSError, match="nothing reads it fast enough"):
        writer.write("too much\n")
    with pytest.raises(OSError, match="nothing reads it fast enough"):
        writer.write("too much\n")

    assert _lost() - before == 2


def test_once_all_is_written_lines_are_taken_again(
    writer: LineWriter, file: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And said how many are missing, if the log has a word for it."""
    monkeypatch.setattr(lines, "MOST_BYTES", 100)
    writer.on_again = "{} lines are missing\n".format
    writer.write("x" * 98 + "\n")
    with pytest.raises(OSError, match="nothing reads it"):
        writer.write("too much\n")

    file.may_go_on.set()

    _until(lambda: file.data.endswith(b"x\n1 lines are missing\n"))
    writer.write("fits\n")
    _until(lambda: file.data.endswith(b"missing\nfits\n"))


def test_an_error_is_told_at_the_next_line(writer: LineWriter, file: File) -> None:
    """And no more once lines can be written."""
    before = _lost()
    file.error = OSError(ENOSPC, "No space left on device")
    file.may_go_on.set()
    writer.write("lost\n")
    _until(lambda: _lost() > before)

    with pytest.raises(OSError, match="No space left on device"):
        writer.write("lost, too\n")
    _until(lambda: _lost() == before + 2)
    file.error = None
    with pytest.raises(OSError, match="No space left on device"):
        writer.write("written\n")
    _until(lambda: file.data == b"written\n")
    _until(lambda: writer._error is None)
    writer.write("written\n")
    _until(lambda: file.data == b"written\nwritten\n")


def test_a_line_that_was_cut_off_does_not_run_into_the_next(
    writer: LineWriter, file: File
) -> None:
    """A disk may become full in its middle."""
    writer.write("first\n")
    assert file.is_asked.wait(PATIENCE_S)
    file.most = 3
    file.may_go_on.set()
    _until(lambda: file.data == b"first\n")
    file.may_go_on.clear()
    file.is_asked.clear()
    before = _lost()

    class Full(File):
        def write(self, data: bytes) -> int:
            if file.data.endswith(b"cut"):
                raise OSError(ENOSPC, "No space left on device")
            return file.write(data)

    writer._file = Full()
    file.may_go_on.set()
    writer.write("cut off\n")
    _until(lambda: _lost() > before)
    writer._file = file
    with pytest.raises(OSError, match="No space left"):
        writer.write("next\n")

    _until(lambda: file.data.endswith(b"next\n"))
    assert file.data == b"first\ncut\nnext\n"


def test_until_it_is_started_lines_are_written_at_once(file: File) -> None:
    """What becomes a daemon would leave a thread behind."""
    file.may_go_on.set()
    writer = LineWriter("log", file)

    writer.write("at once\n")

    assert file.data == b"at once\n"
    writer.close()


def test_a_full_pipe_does_not_block_before_that(tmp_path: Path) -> None:
    """The process before may have left it so."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    file = append_to(path)
    os.set_blocking(file.fileno(), False)
    while file.write(b"x" * 4096):
        pass
    os.set_blocking(file.fileno(), True)
    writer = LineWriter("log", file)

    writer.write("waits\n")

    assert writer._size == len("waits\n")
    # So that the end of the process does not wait for it.
    os.set_blocking(file.fileno(), False)
    while os.read(file.fileno(), 1 << 20):
        if not writer._takes_more():
            continue
        break
    writer.close()


def test_a_pipe_without_a_reader_can_be_opened(tmp_path: Path) -> None:
    """To open it as Python does waits for one."""
    path = tmp_path / "pipe"
    os.mkfifo(path)

    with append_to(path) as pipe:
        assert pipe.write(b"line\n") == 5
        assert os.read(pipe.fileno(), 100) == b"line\n"


def test_a_file_is_gone_on_with(tmp_path: Path) -> None:
    """What is in it stays."""
    path = tmp_path / "log"
    for _ in range(2):
        with append_to(path) as file:
            file.write(b"line\n")

    assert path.read_bytes() == b"line\nline\n"


def test_in_the_end_the_rest_is_written(file: File) -> None:
    """Also what was collected, as there were many."""
    writer = LineWriter("access", file, collect_s=PATIENCE_S)
    writer.start()
    writer.write("last\n")
    file.may_go_on.set()

    flush_all()

    assert file.data == b"last\n"
    writer.close()


def test_the_end_waits_for_no_pipe(file: File, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some lines may be lost then."""
    monkeypatch.setattr(lines, "LAST_S", 0.01)
    writer = LineWriter("access", file)
    writer.start()
    writer.write("nobody reads this\n")

    flush_all()

    assert file.data == b""
    file.may_go_on.set()
    writer.close()
    assert file.is_closed.wait(PATIENCE_S)


def test_what_is_done_between_lines_cuts_none(writer: LineWriter, file: File) -> None:
    """As when the file is rotated."""
    done: list[bytes] = []
    writer.write("before\n")
    assert file.is_asked.wait(PATIENCE_S)

    writer.between_lines(lambda: done.append(file.data))
    early = list(done)
    file.may_go_on.set()

    _until(lambda: done)
    assert early == []
    assert done == [b"before\n"]
