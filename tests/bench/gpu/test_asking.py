"""Calls as each server takes them, and answers that belong to them."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from bench.gpu import asking
from bench.gpu.plan import Cell
from bench.wire.errors import CannotMeasure

CELL = Cell(server="naive", clients=4, inputs=2)


@pytest.mark.parametrize(
    ("server", "path", "member"),
    [
        ("naive", b"/embed", "inputs"),
        ("TEI", b"/embed", "inputs"),
        ("vLLM", b"/v1/embeddings", "input"),
    ],
)
def test_calls_are_written_as_the_server_takes_them(
    server: str, path: bytes, member: str
) -> None:
    """Whole, with the length of their body."""
    cell = Cell(server=server, clients=1, inputs=2)
    [call] = asking.requests(cell, 1)
    head, _, body = call.partition(b"\r\n\r\n")

    assert head.startswith(b"POST " + path + b" HTTP/1.1\r\n")
    assert b"Content-Length: %d" % len(body) in head
    assert json.loads(body)[member] == cell.texts(0)


def test_the_nearest_row_is_found() -> None:
    """Also if its last digits differ."""
    rows = [[1.0, 0.0], [0.0, 1.0]]

    assert asking.nearest([[0.1, 0.9], [0.99, 0.1]], rows) == [1, 0]


def _answers(monkeypatch: pytest.MonkeyPatch, mix_up: Any) -> None:
    async def ask(url: str, calls: Sequence[bytes]) -> list[list[float]]:
        rows = [
            [float(text == each) for each in everything]
            for call in calls
            for text in json.loads(call.partition(b"\r\n\r\n")[2])["inputs"]
        ]
        return mix_up(rows) if url == "proxy" else rows

    everything = [text for at in range(asking.CHECKED) for text in CELL.texts(at)]
    monkeypatch.setattr(asking, "_ask", ask)


def test_right_answers_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """All rows where they belong."""
    _answers(monkeypatch, lambda rows: rows)

    asking.check("direct", "proxy", CELL)


def test_rows_of_another_call_end_the_benchmark(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two that were exchanged are enough."""
    _answers(monkeypatch, lambda rows: [rows[1], rows[0], *rows[2:]])

    with pytest.raises(CannotMeasure, match="wrong answer"):
        asking.check("direct", "proxy", CELL)
