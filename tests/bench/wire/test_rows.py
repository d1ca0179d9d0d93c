"""The rule of the answers is one, wherever it is asked."""

import base64
import json
import re
import struct

import pytest

from bench.wire import rows


@pytest.mark.parametrize("dimensions", [1, 8, 384])
def test_a_row_has_its_dimensions(dimensions: int) -> None:
    """In both of its forms."""
    for row in rows.rows(dimensions)[:4]:
        assert row.numbers.count(b",") == dimensions - 1
        assert len(base64.b64decode(row.base64)) == 4 * dimensions


def test_both_forms_are_the_same_numbers() -> None:
    """As far as float32 tells them apart."""
    row = rows.rows(8)[5]

    numbers = json.loads(b"[%b]" % row.numbers)
    assert struct.unpack("<8f", base64.b64decode(row.base64)) == pytest.approx(
        numbers, rel=1e-6
    )


def test_rows_differ() -> None:
    """A row that stands in for another would not be noticed otherwise."""
    assert len({row.numbers for row in rows.rows(8)}) == rows.COUNT


def test_who_decodes_a_row_writes_it_again_as_it_was() -> None:
    """So proxies that decode numbers are held to the same bytes."""
    for row in rows.rows(384)[:4]:
        numbers = json.loads(b"[%b]" % row.numbers)
        assert json.dumps(numbers, separators=(",", ":")).encode()[1:-1] == row.numbers


def test_numbers_look_as_a_model_writes_them() -> None:
    """About as many bytes each as in recorded answers, which have 11 to 12."""
    row = rows.rows(384)[0].numbers

    assert 10.5 < len(re.sub(b",", b"", row)) / 384 < 12


@pytest.mark.parametrize(
    ("text", "hashed"), [(b"", 2166136261), (b"a", 0xE40C292C), (b"foobar", 0xBF9CF968)]
)
def test_a_text_chooses_its_row_by_fnv_1a(text: bytes, hashed: int) -> None:
    """These are the published examples of that hash."""
    assert rows.row_number(text) == hashed % rows.COUNT
