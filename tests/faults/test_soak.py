"""
A thousand connections for a while, and memory that stays where it is.

`ABPROXY_SOAK_S=3600` makes the while an hour.
"""

import os
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred

from bench.breakable import Traits
from support.client import Caller, connect, sleep, together
from support.processes import daemon
from support.upstream import breakable

SOAK_S = float(os.environ.get("ABPROXY_SOAK_S", "8"))
WARM_UP_S = 4

MAY_GROW_BYTES = 16 << 20
"""
What the allocator may take while it settles, which it has not after a few
seconds: a kilobyte for each call.  A request that stays is several.
"""


async def _asks_on(caller: Caller, name: str, ends_at: float) -> int:
    clock: Any = caller.transport.reactor
    wrong = turn = 0
    while clock.seconds() < ends_at:
        turn += 1
        text = f"{name} {turn} {'x' * (turn % 50)}"
        wrong += not (await caller.embed(text)).is_for([text])
        await sleep(0.5)
    return wrong


@pytest.mark.timeout(SOAK_S + 60)
@ensureDeferred
async def test_a_thousand_connections_need_no_more_memory_in_time(
    tmp_path: Path,
) -> None:
    """What is answered leaves nothing behind."""
    traits = Traits(ms=2, ms_per_input=0.02, workers=4, dimensions=32)
    async with breakable(traits) as upstream, daemon(tmp_path, upstream) as here:
        callers = await together(connect(here.port) for _ in range(1000))
        clock: Any = callers[0].transport.reactor
        ends_at = clock.seconds() + WARM_UP_S + SOAK_S

        asked = together(
            _asks_on(caller, f"caller {at}", ends_at)
            for at, caller in enumerate(callers)
        )
        await sleep(WARM_UP_S)
        before = here.resident_bytes
        wrong = await asked
        after = here.resident_bytes

        assert sum(wrong) == 0
        assert after - before < MAY_GROW_BYTES
        for caller in callers:
            caller.hang_up()
        await sleep(0.1)
