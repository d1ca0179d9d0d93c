"""
The rule of the mock upstream's answers: which row an input gets, and its bytes.

The rows are made here and handed to the upstream as a file, so a program
that has the number of dimensions has every answer.  A row looks like one of
text-embeddings-inference: numbers of about eight digits.  They are written as
every JSON writer of today would write them again, so a proxy that decodes them
gets the same bytes too.
"""

import base64
import random
import struct
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from attrs import frozen

__all__ = [
    "COUNT",
    "Row",
    "embed_answer",
    "openai_answer",
    "row_number",
    "rows",
    "write",
]

COUNT = 256
SMALLEST = 1e-4
"""Below this, writers of JSON begin to differ."""

_FNV_START, _FNV_PRIME, _FNV_MASK = 2166136261, 16777619, 0xFFFFFFFF


@frozen(kw_only=True)
class Row:
    """One row of an answer, in both of its forms, without quotes or brackets."""

    numbers: bytes
    base64: bytes


@cache
def row_number(text: bytes) -> int:
    """Choose a row for the JSON *text* of an input, by its FNV-1a hash."""
    found = _FNV_START
    for byte in text:
        found = (found ^ byte) * _FNV_PRIME & _FNV_MASK
    return found % COUNT


@cache
def rows(dimensions: int) -> Sequence[Row]:
    """Make all rows of a server; the same ones every time."""
    source = random.Random(dimensions)  # noqa: S311  numbers to look at, no secrets
    return [
        _row([_number(source, dimensions) for _ in range(dimensions)])
        for _ in range(COUNT)
    ]


def _number(source: random.Random, dimensions: int) -> str:
    value = source.gauss(0, dimensions**-0.5)
    if abs(value) < SMALLEST:
        return _number(source, dimensions)
    return f"{value:.9f}".rstrip("0")


def _row(numbers: Sequence[str]) -> Row:
    packed = struct.pack(f"<{len(numbers)}f", *map(float, numbers))
    return Row(numbers=",".join(numbers).encode(), base64=base64.b64encode(packed))


def write(dimensions: int, path: Path) -> Path:
    """Write the file that the upstream is started with."""
    lines = [b"%b\t%b\n" % (row.numbers, row.base64) for row in rows(dimensions)]
    path.write_bytes(b"".join(lines))
    return path


def embed_answer(inputs: Sequence[bytes], dimensions: int) -> bytes:
    """Write the answer of /embed to *inputs*, each given as JSON."""
    found = [rows(dimensions)[row_number(each)].numbers for each in inputs]
    return b"[[%b]]" % b"],[".join(found)


def openai_answer(
    inputs: Sequence[bytes], dimensions: int, *, is_base64: bool
) -> bytes:
    """Write the answer of /v1/embeddings to *inputs*, each given as JSON."""
    found = [rows(dimensions)[row_number(each)] for each in inputs]
    texts = [
        b'"%b"' % row.base64 if is_base64 else b"[%b]" % row.numbers for row in found
    ]
    data = b",".join(
        b'{"object":"embedding","embedding":%b,"index":%d}' % (text, at)
        for at, text in enumerate(texts)
    )
    tokens = sum(map(len, inputs))
    return (
        b'{"object":"list","data":[%b],"model":"all-MiniLM-L6-v2",'
        b'"usage":{"prompt_tokens":%d,"total_tokens":%d}}' % (data, tokens, tokens)
    )
