"""Figures of an hour, as the diagnosis and its advice get them."""

from typing import Any

from abproxy.telemetry.advice import LimitsInForce
from abproxy.telemetry.history import Totals

__all__ = ["BY_DEFAULT", "HOUR", "alone", "hour"]

HOUR = 3600.0
BY_DEFAULT = LimitsInForce(batch_items=32, batch_bytes=1_900_000)


def hour(**figures: Any) -> Totals:
    """Count an hour in which ten calls shared a batch that was not full."""
    usual = {"at": HOUR, "calls": 1000, "parts": 1000, "items": 2000, "batches": 100}
    return Totals(**{**usual, "requests": 100, **figures})


def alone(**figures: Any) -> Totals:
    """Count an hour in which each call travelled by itself."""
    return hour(**{"batches": 1000, "requests": 1000, **figures})
