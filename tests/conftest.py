"""What every test is held to, that nothing may leak, and what many share."""

import gc
from collections.abc import Iterator

import pytest
from twisted.logger import LogEvent, globalLogPublisher


def pytest_collection_finish() -> None:
    """
    Set aside what all tests share, so that looking for leaks is quick.

    Garbage is collected after every test, and modules are none.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def nothing_leaked() -> Iterator[list[object]]:
    """
    Fail the test if it leaves a delayed call or a failure in the log.

    A test that expects a failure clears the list.
    """
    from twisted.internet import reactor  # noqa: PLC0415  not before it is chosen

    failures: list[object] = []

    def observe(event: LogEvent) -> None:
        if "log_failure" in event:
            failures.append(event["log_failure"])

    globalLogPublisher.addObserver(observe)
    yield failures
    gc.collect()
    globalLogPublisher.removeObserver(observe)
    calls = reactor.getDelayedCalls()  # type: ignore[attr-defined]
    for call in calls:
        call.cancel()
    assert not failures
    assert not calls


@pytest.fixture
def said() -> Iterator[list[str]]:
    """What the log said."""
    lines: list[str] = []

    def observe(event: LogEvent) -> None:
        if event.get("log_format"):
            lines.append(str(event["log_format"]).format(**event))

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)


@pytest.fixture
def no_garbage_collector() -> Iterator[None]:
    """Keep cycles of objects from being found by chance."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()
