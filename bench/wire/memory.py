"""How much memory abproxy has: alone, with idle connections, and under load."""

import asyncio

from bench.load import read_answer
from bench.wire.bench import Bench, Found, say
from bench.wire.processes import Child
from bench.wire.workloads import Workload

__all__ = ["memory"]

CONNECTIONS = 1000
LOADED_S = 3


def memory(bench: Bench) -> Found:
    """Start a fresh abproxy and read its resident memory as it goes."""
    say(f"memory: {CONNECTIONS} connections, idle and under load")
    workload = Workload(name="memory", clients=CONNECTIONS)
    ground = bench.ground
    with (
        ground.upstream(workload.dimensions) as upstream,
        ground.abproxy(upstream.url) as proxy,
    ):
        asyncio.run(_hold(proxy, workload, 1))  # it has answered once
        started = proxy.resident_bytes
        idle = asyncio.run(_hold(proxy, workload, CONNECTIONS))
        bench.load(proxy.url, workload.requests(), CONNECTIONS, LOADED_S)
        loaded = proxy.resident_bytes
    return {
        "connections": CONNECTIONS,
        "started_mb": started / 1e6,
        "idle_mb": idle / 1e6,
        "bytes_per_idle_connection": (idle - started) // CONNECTIONS,
        "loaded_mb": loaded / 1e6,
    }


async def _hold(proxy: Child, workload: Workload, clients: int) -> int:
    """Open connections, make one call on each, and read the memory then."""
    writers = []
    try:
        for number in range(clients):
            port = int(proxy.url.rpartition(":")[2])
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writers.append(writer)
            writer.write(workload.request(number))
            await read_answer(reader)
        return proxy.resident_bytes
    finally:
        for writer in writers:
            writer.close()
