"""
Log lines that are written by a thread, so that no write stops the proxy.

A pipe that is not read, a terminal that is held, or a slow disk blocks the write to
it.  Here the thread waits for it, and not the reactor; lines wait in a buffer, and
beyond its size they are lost and counted.
"""

import atexit
import os
import select
import stat
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from errno import ENOBUFS
from io import FileIO
from pathlib import Path
from queue import SimpleQueue
from threading import Event, RLock, Thread
from typing import Any, ClassVar
from weakref import WeakSet

from attrs import define, field

__all__ = ["LineWriter", "append_to", "flush_all", "lost_lines", "open_stdout"]

MOST_BYTES = 1 << 20
"""How much may wait to be written."""

AT_ONCE = 4096
"""Bytes that a pipe takes at once, so that lines of several processes do not mix."""

COLLECT_S = 0.05
"""How long lines are collected where there are many, in seconds."""

LAST_S = 1.0
"""How long writing the last lines may take when the process ends, in seconds."""

_lost: Counter[str] = Counter()
_writers: "WeakSet[LineWriter]" = WeakSet()


@define(eq=False, weakref_slot=True)
class LineWriter:
    """
    A text file for lines, to which a thread writes once it is started.

    Before that, lines are written at once if the file takes them: a process that
    becomes a daemon would leave its threads behind.
    """

    encoding: ClassVar[str] = "utf-8"

    name: str
    """The log that it is, as the metric has it."""

    _file: Any = field(repr=False)
    """Its `write` returns how many bytes it wrote, or None if it can write none now."""

    is_strict: bool = False
    """Whether `write` fails as long as lines are lost."""

    collect_s: float = COLLECT_S
    on_again: Callable[[int], str] | None = field(default=None, repr=False)
    """Returns the line that says how many were lost, when they are written again."""

    _lines: list[bytes] = field(init=False, factory=list, repr=False)
    _size: int = field(init=False, default=0)
    """Bytes that are not written yet."""

    _lost_lately: int = field(init=False, default=0)
    _error: OSError | None = field(init=False, default=None)
    """Why lines are lost at the moment."""

    _is_torn: bool = field(init=False, default=False)
    """Whether the last line was cut off."""

    _jobs: list[Callable[[], object]] = field(init=False, factory=list, repr=False)
    _is_closing: bool = field(init=False, default=False)
    _thread: Thread | None = field(init=False, default=None, repr=False)
    _lock: Any = field(init=False, factory=RLock, repr=False)
    _wake: "SimpleQueue[None]" = field(init=False, factory=SimpleQueue, repr=False)
    _hurry: Event = field(init=False, factory=Event, repr=False)

    def __attrs_post_init__(self) -> None:
        """Register the flush at the end of the process."""
        if not _writers:
            atexit.register(flush_all)
        _writers.add(self)

    def start(self) -> None:
        """Start the thread that writes from now on."""
        with self._lock:
            if self._thread is not None or self._is_closing:
                return
            # A daemon, as the end of the process must not wait for a pipe.
            self._thread = Thread(target=self._work, daemon=True, name=self.name)
            self._thread.start()

    def write(self, text: str) -> None:
        """
        Queue a line to be written.

        Raises:
            OSError: lines are being lost, and the writer is strict.
        """
        line = text.encode(errors="backslashreplace")
        with self._lock:
            if self._size + len(line) > MOST_BYTES:
                self._lose(1, OSError(ENOBUFS, "nothing reads it fast enough"))
            else:
                if not self._lines:
                    self._wake.put(None)
                self._lines.append(line)
                self._size += len(line)
            if self._thread is None and self._takes_more():
                self._write_waiting()
        if self._error is not None and self.is_strict:
            raise self._error

    def flush(self) -> None:
        """Do nothing: the thread writes."""

    def between_lines(self, job: Callable[[], object]) -> None:
        """Call *job* when no line is being written, as to rotate the file."""
        with self._lock:
            self._jobs.append(job)
            if self._thread is None:
                self._write_waiting()
        self._wake.put(None)

    def close(self) -> None:
        """Close the file once all is written."""
        with self._lock:
            self._is_closing = True
            if self._thread is None:
                self._write_waiting()
                self._file.close()
        self._wake.put(None)

    def hurry(self, until: float) -> None:
        """Wait until all is written, but not beyond a time of the monotonic clock."""
        self._hurry.set()
        self.start()
        while self._size and time.monotonic() < until:
            time.sleep(0.002)

    def _takes_more(self) -> bool:
        """Return whether the file takes some bytes at once."""
        if not hasattr(self._file, "fileno"):
            return True
        poll = select.poll()
        poll.register(self._file.fileno(), select.POLLOUT)
        return bool(poll.poll(0))

    def _work(self) -> None:
        while not self._is_closing or self._lines:
            self._wake.get()
            if self.collect_s:
                self._hurry.wait(self.collect_s)
            self._write_waiting()
        self._file.close()

    def _write_waiting(self) -> None:
        with self._lock:
            lines, self._lines = self._lines, []
            jobs, self._jobs = self._jobs, []
        for job in jobs:
            with suppress(OSError):
                job()
        for some in _portions(lines):
            is_whole = self._write(some)
            with self._lock:
                self._size -= sum(map(len, some))
            if is_whole:
                self._wrote()

    def _write(self, lines: list[bytes]) -> bool:
        """Write some lines; return whether none was lost."""
        left = b"".join((b"\n" * self._is_torn, *lines))
        last = b""
        try:
            while left:
                taken = self._file.write(left)
                if taken is None:
                    time.sleep(COLLECT_S)  # made not to block by another process
                    continue
                last, left = left[taken - 1 : taken], left[taken:]
        except (OSError, ValueError) as error:
            self._lose(left.count(b"\n"), error)
        if last:
            self._is_torn = last != b"\n"
        return not left

    def _lose(self, lines: int, why: Exception) -> None:
        with self._lock:
            _lost[self.name] += lines
            self._lost_lately += lines
            self._error = why if isinstance(why, OSError) else OSError(str(why))

    def _wrote(self) -> None:
        """Write how many lines were lost, once none wait any more."""
        with self._lock:
            if self._lines or self._error is None:
                return
            self._error, lost, self._lost_lately = None, self._lost_lately, 0
        if self.on_again is not None:
            with suppress(OSError):  # it is lost as well
                self.write(self.on_again(lost))


def _portions(lines: list[bytes]) -> Iterator[list[bytes]]:
    """Yield as many lines each time as are surely written together."""
    some: list[bytes] = []
    size = 0
    for line in lines:
        if some and size + len(line) > AT_ONCE:
            yield some
            some, size = [], 0
        some.append(line)
        size += len(line)
    if some:
        yield some


def append_to(file: Path) -> Any:
    """
    Open *file* to append bytes to it, without waiting for a reader if it is a pipe.

    Raises:
        OSError: it cannot be opened.
    """
    is_pipe = file.exists() and stat.S_ISFIFO(file.stat().st_mode)
    # Both ends: to open the one end of a pipe waits for the other.
    mode = os.O_RDWR if is_pipe else os.O_WRONLY | os.O_APPEND | os.O_CREAT
    return os.fdopen(os.open(file, mode, 0o666), "wb", buffering=0)


def open_stdout(name: str, **about: Any) -> Any:
    """Return what writes to standard output, which it never closes."""
    try:
        number = sys.stdout.fileno()
    except (OSError, ValueError):  # something else stands in for it
        return sys.stdout
    return LineWriter(name, FileIO(number, "wb", closefd=False), **about)


def lost_lines() -> dict[str, int]:
    """Return how many lines were lost of each log."""
    return {name: _lost[name] for name in ("access", "log")}


def flush_all() -> None:
    """Write what is left in all logs, as far as that is possible within a second."""
    until = time.monotonic() + LAST_S
    for writer in list(_writers):
        writer.hurry(until)
