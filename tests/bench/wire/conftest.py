"""The mock upstream and the yardstick, as real processes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.wire import upstream
from bench.wire.contestants import Ground
from bench.wire.cores import share_out, usable
from bench.wire.processes import Child

DIMENSIONS = 8


@pytest.fixture(scope="session")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    """Say where processes are started."""
    if upstream.compiler() is None:
        pytest.skip("the mock upstream is written in C and there is no C compiler")
    folder: Path = tmp_path_factory.mktemp("wire")
    return Ground(cores=share_out(usable()), folder=folder)


@pytest.fixture(scope="session")
def direct(ground: Ground) -> Iterator[Child]:
    """Run the mock upstream."""
    with ground.upstream(DIMENSIONS) as running:
        yield running


@pytest.fixture(scope="session")
def yardstick(ground: Ground, direct: Child) -> Iterator[Child]:
    """Run the yardstick in front of it."""
    pytest.importorskip("aiohttp")
    with ground.aiohttp(direct.url) as running:
        yield running
