"""
Keys in files: one a line, so that they can be mounted, and replaced at any time.

Blank lines, and lines that begin with `#`, are no keys.
"""

import os
import stat
from collections.abc import Callable
from typing import Any

from attrs import frozen

from abproxy.errors import SettingsError
from abproxy.settings.parsers import key

__all__ = ["KEY_FILES", "OF_UPSTREAM", "KeyFile"]

MOST_BYTES = 1 << 20
"""No list of keys is larger; a wrong path may lead to anything."""


def _keys_in(text: str) -> tuple[str, ...]:
    lines = [line.strip() for line in text.splitlines()]
    keys = tuple(key(line) for line in lines if line and not line.startswith("#"))
    if not keys:
        raise ValueError("there is no key in it")
    return keys


def _key_in(text: str) -> str:
    found, *others = _keys_in(text)
    if others:
        raise ValueError("there is more than one key in it")
    return found


@frozen
class KeyFile:
    """A setting that names a file, and the one of which the file has the value."""

    variable: str
    name: str
    """The field of Settings with the path."""

    of: str
    """The field of Settings with the keys."""

    parse: Callable[[str], Any]

    def read(self, path: str) -> Any:
        """
        Return what is in the file at *path* now.

        Raises:
            SettingsError: it cannot be read, or has something else in it, or nothing.
        """
        try:
            return self.parse(_text_in(path))
        except UnicodeDecodeError:
            why = "it is not text"
        except OSError as error:
            why = error.strerror or str(error)
        except ValueError as error:
            why = str(error)
        raise SettingsError(f"{self.variable}: cannot use {path}: {why}")


def _text_in(path: str) -> str:
    with open(path, "rb", opener=_open_without_waiting) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("it is not a regular file")
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f"it has more than {MOST_BYTES} bytes")
    return content.decode("utf-8-sig")


def _open_without_waiting(path: str, flags: int) -> int:
    # A pipe would be waited for until something is written into it.
    return os.open(path, flags | os.O_NONBLOCK)


OF_UPSTREAM = KeyFile(
    "INFERENCE_SERVICE_KEY_FILE", "upstream_key_file", "upstream_key", _key_in
)

KEY_FILES = (
    KeyFile("ADMIN_KEY_FILE", "admin_key_file", "admin_keys", _keys_in),
    KeyFile("API_KEY_FILE", "api_key_file", "api_keys", _keys_in),
    KeyFile("BULK_API_KEY_FILE", "bulk_api_key_file", "bulk_api_keys", _keys_in),
    OF_UPSTREAM,
)
