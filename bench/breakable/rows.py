"""
Rows that anyone can compute: what an input is answered with depends on it alone.

A test that knows what it sent knows what it must get, to the last digit.
"""

import base64
import struct
from functools import lru_cache
from typing import Any
from zlib import crc32

import msgspec

__all__ = ["row_of", "spell", "spell_base64"]

_MODULUS = 1_999_993


def _numbers(spelled: bytes, dimensions: int) -> list[float]:
    seed = crc32(spelled)
    return [
        (seed * (place + 1) % _MODULUS - _MODULUS // 2) / 1e7
        for place in range(dimensions)
    ]


def row_of(item: Any, dimensions: int = 4) -> list[float]:
    """Compute the row of *item*, a text or a list of token ids."""
    return _numbers(msgspec.json.encode(item), dimensions)


@lru_cache(maxsize=4096)
def _spelled(spelled: bytes, dimensions: int) -> bytes:
    return msgspec.json.encode(_numbers(spelled, dimensions))


def spell(item: Any, dimensions: int) -> bytes:
    """Write the row of *item* as JSON numbers."""
    return _spelled(msgspec.json.encode(item), dimensions)


def spell_base64(item: Any, dimensions: int) -> bytes:
    """Write the row of *item* as a JSON string of little-endian float32."""
    packed = struct.pack(f"<{dimensions}f", *row_of(item, dimensions))
    return b'"%b"' % base64.b64encode(packed)
