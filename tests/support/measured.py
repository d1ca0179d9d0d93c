"""Results of the benchmark, to write tables and plots of."""

from typing import Any


def one(clients: int, **more: Any) -> dict[str, Any]:
    """Make results of a workload, of two rounds."""
    workload = {
        "name": f"clients-{clients}",
        "clients": clients,
        "inputs": 2,
        "dimensions": 384,
        "is_openai": False,
        **more,
    }
    rates = {
        "direct": [90000, 110000],
        "aiohttp": [1000, 2000],
        "abproxy": [3000, 6000],
    }
    contestants = {
        name: {
            "calls_per_s": both,
            "p50_ms": [0.5, 1.5],
            "p99_ms": [12, 14],
            "cpu_us": [1e6 / each for each in both],
            "busy": [0.9, 1.0],
            "resident_mb": [50, 60],
        }
        for name, both in rates.items()
    }
    return {"workload": workload, "contestants": contestants}


def cold(**own: Any) -> dict[str, Any]:
    """Make results of one client that pauses."""
    found = one(1, name="cold")
    p50s_ms = {"direct": [5.0, 5.5], "aiohttp": [6.0, 6.5], "abproxy": [5.75, 6.75]}
    for name, p50_ms in p50s_ms.items():
        found["contestants"][name]["p50_ms"] = p50_ms
    return {**found, "pause_ms": 10, "upstream_ms": 5, "own": own}


def found(**more: Any) -> dict[str, Any]:
    """Make results."""
    machine = {
        "date": "2026-11-26",
        "cpu": "A <fast> one",
        "cores": 2,
        "placed": "here and there",
        "system": "Linux",
        "python": "3.11.7",
        "packages": {"aiohttp": "3.14"},
        "load": "wrk",
        "busy_before": 0.1,
    }
    speed = [one(1), one(64), one(64, name="inputs-1", inputs=1)]
    return {"machine": machine, "rounds": 2, "seconds": 1, "speed": speed, **more}
