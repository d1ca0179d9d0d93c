"""What was measured on, and when: without it a figure says nothing."""

import os
import platform
import re
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench.wire.bench import Found
from bench.wire.cores import Cores, usable

__all__ = ["describe"]

PACKAGES = ("abproxy", "Twisted", "aiohttp", "orjson")


def describe(load: str, cores: Cores) -> Found:
    """Tell all there is to tell."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "cpu": _cpu(),
        "cores": len(usable()),
        "placed": str(cores),
        "system": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "load": load,
        "busy_before": round(os.getloadavg()[0], 1),
    }


def _cpu() -> str:
    told = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    found = re.search(r"^model name\s*: (.+)$", told, re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"
