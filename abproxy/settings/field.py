"""How one setting is declared: its option, parser, default, unit and meaning."""

from collections.abc import Callable
from typing import Any

from attrs import field


def setting(
    option: str, read: Callable[[str], Any], default: Any, unit: str, meaning: str
) -> Any:
    """Declare a setting that may be shown."""
    metadata = {"option": option, "read": read, "unit": unit, "meaning": meaning}
    return field(default=default, metadata=metadata)


def secret(option: str, read: Callable[[str], Any], default: Any, meaning: str) -> Any:
    """Declare a setting of which only whether there is one may be shown."""
    metadata = {"option": option, "read": read, "unit": "", "meaning": meaning}
    return field(default=default, metadata=metadata, repr=False)
