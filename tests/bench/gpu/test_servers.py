"""Servers that are installed are found, and those that work on are waited for."""

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from attrs import define, field

from bench.gpu.servers import (
    IDLE,
    INSTALLED,
    MOST_WAITS,
    SETTLE_S,
    found_here,
    settled,
)
from bench.wire.processes import Child


@define
class Working:
    """A process whose CPU time grows as it is told."""

    _grows: Iterator[float]
    _now_s: float = field(default=0.0, init=False)
    waits: list[float] = field(factory=list)

    @property
    def cpu_s(self) -> float:
        self._now_s += next(self._grows)
        return self._now_s


def _settled(process: Working) -> bool:
    return settled(cast("Child", process), process.waits.append)


def test_a_server_that_works_on_is_waited_for() -> None:
    """Until it needs next to nothing."""
    process = Working(iter([0.0, SETTLE_S, SETTLE_S, IDLE * SETTLE_S / 2]))

    assert _settled(process)
    assert process.waits == [SETTLE_S] * 3


def test_a_server_that_is_never_idle_is_not_waited_for_for_ever() -> None:
    """Some never are."""
    process = Working(iter([SETTLE_S] * (MOST_WAITS + 1)))

    assert not _settled(process)


@pytest.mark.parametrize("name", INSTALLED)
def test_an_installed_server_is_found(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the path, as a program."""
    program = tmp_path / INSTALLED[name].program
    program.touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert found_here() == [name]


@pytest.mark.parametrize("name", INSTALLED)
def test_an_installed_server_is_told_model_and_port(name: str) -> None:
    """In options of its own."""
    options = INSTALLED[name].options("/a/model", "1234")

    assert "/a/model" in options
    assert options[options.index("--port") + 1] == "1234"
