"""
A fast wrong answer is no answer: every byte is compared with the rule.

Before anything is measured, as many clients as will be measured make calls at
the same time, each with texts of its own, and each answer has to be exactly
what the upstream would have said to that call alone.
"""

import asyncio
from urllib.parse import urlsplit

from bench.load import read_answer
from bench.wire.errors import CannotMeasure
from bench.wire.workloads import Workload

__all__ = ["check", "compare"]

OK = 200
PATIENCE_S = 30
LEAST_CALLS = 300
LEAST_CALLS_OF_A_CLIENT = 3


def compare(workload: Workload, number: int, status: int, body: bytes) -> None:
    """
    Compare an answer to call *number* with the rule.

    Raises:
        CannotMeasure: it is not exactly the right one.
    """
    expected = workload.answer(number)
    if status != OK:
        raise CannotMeasure(f"{workload.name}: status {status}: {body[:200]!r}")
    if body != expected:
        at = next(
            (
                at
                for at, (a, b) in enumerate(zip(body, expected, strict=False))
                if a != b
            ),
            -1,
        )
        raise CannotMeasure(
            f"{workload.name}: a wrong answer to call {number}: {len(body)} bytes for "
            f"{len(expected)}; at byte {at} {body[at : at + 40]!r} "
            f"instead of {expected[at : at + 40]!r}"
        )


def check(url: str, workload: Workload) -> int:
    """
    Let all clients make calls at once, and look at each answer.

    Returns:
        How many calls were made.

    Raises:
        CannotMeasure: an answer was wrong, or did not come.
    """
    return asyncio.run(_check(url, workload))


async def _check(url: str, workload: Workload) -> int:
    each = max(LEAST_CALLS_OF_A_CLIENT, LEAST_CALLS // workload.clients)
    numbers = [range(at * each, (at + 1) * each) for at in range(workload.clients)]
    clients = asyncio.gather(*(_client(url, workload, own) for own in numbers))
    try:
        await asyncio.wait_for(clients, PATIENCE_S)
    except TimeoutError:
        raise CannotMeasure(f"{workload.name}: no answer in {PATIENCE_S} s") from None
    except (OSError, EOFError, ValueError) as error:
        raise CannotMeasure(f"{workload.name}: {error!r}") from error
    return each * workload.clients


async def _client(url: str, workload: Workload, numbers: range) -> None:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        for number in numbers:
            writer.write(workload.request(number))
            status, _, body = await read_answer(reader)
            compare(workload, number, status, body)
    finally:
        writer.close()
