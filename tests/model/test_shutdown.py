"""What ends the process."""

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from attrs import define, field

from abproxy_model.service import Shutdown


@define(eq=False)
class RecordingReactor:
    """Keeps what it is asked to do."""

    readers: list[Any] = field(factory=list)
    stops: int = 0

    def callWhenRunning(self, call: Any) -> None:  # noqa: N802
        """Pretend to run."""
        call()

    def callFromThread(self, call: Any, *arguments: Any) -> None:  # noqa: N802
        """Call at once."""
        call(*arguments)

    def addReader(self, reader: Any) -> None:  # noqa: N802
        """Remember *reader*."""
        self.readers.append(reader)

    def removeReader(self, reader: Any) -> None:  # noqa: N802
        """Forget *reader*."""
        self.readers.remove(reader)

    def stop(self) -> None:
        """Count."""
        self.stops += 1


@pytest.fixture
def signals() -> Iterator[None]:
    """Put the signals back as they were."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {each: signal.getsignal(each) for each in numbers}
    yield
    for each, action in before.items():
        signal.signal(each, action)


@pytest.fixture
def stdin() -> Iterator[int]:
    """Put a pipe in the place of standard input, and give its other end."""
    kept = os.dup(0)
    reading, writing = os.pipe()
    os.dup2(reading, 0)
    os.close(reading)
    yield writing
    os.dup2(kept, 0)
    os.close(kept)


@pytest.mark.usefixtures("signals")
def test_sigterm_stops_the_reactor_once() -> None:
    """A second signal changes nothing."""
    reactor = RecordingReactor()
    Shutdown(reactor=reactor, with_stdin=False).startService()

    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGTERM)

    assert reactor.stops == 1
    assert reactor.readers == []


@pytest.mark.usefixtures("signals")
def test_a_child_ends_with_its_standard_input(stdin: int) -> None:
    """What arrives there is ignored, until it is closed."""
    reactor = RecordingReactor()
    Shutdown(reactor=reactor, with_stdin=True).startService()
    (reader,) = reactor.readers

    os.write(stdin, b"anything")
    reader.doRead()
    assert reactor.stops == 0
    os.close(stdin)
    reader.doRead()

    assert reactor.stops == 1
    assert reactor.readers == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
@pytest.mark.usefixtures("signals")
def test_a_child_leaves_the_terminal_to_its_parent(
    stdin: int, number: signal.Signals
) -> None:
    """Ctrl-C, and the terminal's end, reach the whole group; the child waits."""
    reactor = RecordingReactor()
    Shutdown(reactor=reactor, with_stdin=True).startService()

    signal.raise_signal(number)

    assert reactor.stops == 0
    os.close(stdin)
