"""A proxy that is attacked in all ways at once keeps to its memory, and answers."""

from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

import pytest

from bench.attack.attackers import MEGABYTE, Attack, attacked, neighbour, prober
from support.processes import breakable_process, running

MAX_MEMORY = 64 * MEGABYTE
MAX_BODY = 8 * MEGABYTE

MAY_PEAK = 208 * MEGABYTE
"""
Python and all libraries have 60 of it, and what is held 80: a quarter over the limit.

Above that are the copies of the one body that is being read, or of the one answer that
is being written: four times its bytes.
"""

SLOWER = 100
"""
How many times as long the neighbour's median may be.

The attackers take their share of the machine as well.
"""


@pytest.mark.timeout(120)
def test_an_attack_takes_no_more_memory_than_allowed(tmp_path: Path) -> None:
    """Bodies, heads, names, items and answers, with and without the key."""
    options = (
        "--port=0",
        "--api-key=k",
        f"--max-memory-bytes={MAX_MEMORY}",
        f"--max-body-bytes={MAX_BODY}",
    )
    with (
        breakable_process("--ms=1", "--ms-per-input=0.02", "--dimensions=512") as up,
        running(
            tmp_path / "proxy",
            "answers on",
            "abproxy",
            f"--inference-service-url={up}",
            *options,
        ) as proxy,
    ):
        port = urlsplit(proxy.url).port
        assert port is not None
        attack = Attack(port=port, key=b"k", body_bytes=MAX_BODY)
        alone_s = prober(attack, 1)

        with attacked(attack):
            meanwhile_s = prober(attack, 5)
            calls_s = neighbour(attack, 2)
        peak = proxy.peak_bytes

    assert peak < MAY_PEAK, f"{peak / MEGABYTE:.0f} MB"
    assert calls_s
    assert median(meanwhile_s) < SLOWER * median(alone_s)
