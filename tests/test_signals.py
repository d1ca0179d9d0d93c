"""What signals mean."""

import os
import signal
from threading import Thread

from abproxy.service.signals import Signals


class Reactor:
    """Calls at once."""

    def callFromThread(self, callback) -> None:  # noqa: ANN001, N802
        """Call *callback*."""
        callback()


def test_a_signal_is_heard_and_its_former_meaning_returns() -> None:
    """Whoever was there before is there again afterwards."""
    former = signal.getsignal(signal.SIGHUP)
    heard: list[str] = []
    signals = Signals(Reactor())

    signals.on(signal.SIGHUP, lambda: heard.append("hup"))
    signals.on(signal.SIGHUP, lambda: heard.append("hup again"))
    os.kill(os.getpid(), signal.SIGHUP)
    signals.restore()

    assert heard == ["hup again"]
    assert signal.getsignal(signal.SIGHUP) == former


def test_outside_the_main_thread_signals_are_left_alone() -> None:
    """Only the main thread may say what signals mean."""
    former = signal.getsignal(signal.SIGHUP)
    signals = Signals(Reactor())

    thread = Thread(target=signals.on, args=(signal.SIGHUP, print))
    thread.start()
    thread.join()

    assert signal.getsignal(signal.SIGHUP) == former
