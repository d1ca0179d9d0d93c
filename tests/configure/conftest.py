"""What the tests of settings that change share."""

from collections.abc import Iterator

import pytest
from twisted.logger import LogEvent, globalLogPublisher


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
