"""The command line, and a dry run of everything but the card."""

import json
from pathlib import Path

import pytest

from bench.gpu import __main__ as command
from bench.gpu.plan import CELLS, DRY


def test_by_default_all_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the servers that are installed."""
    monkeypatch.setattr(command, "found_here", lambda: ["vLLM"])
    cells = command.parse([]).cells

    assert cells[: len(CELLS)] == [*CELLS]
    assert {each.server for each in cells[len(CELLS) :]} == {"vLLM"}


def test_one_may_choose() -> None:
    """By name."""
    [cell] = command.parse(["batcher-minilm-1x10-8"]).cells

    assert cell.clients == 8


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["noise"], "no such cell: noise"),
        (["--dry", "--write"], "what is pretended is not published"),
    ],
)
def test_a_mistake_is_told(
    arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one line, below the usage."""
    with pytest.raises(SystemExit):
        command.parse(arguments)

    assert reason in capsys.readouterr().err


@pytest.mark.timeout(300)
def test_a_dry_run_does_all_but_compute(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both servers start, are asked both ways, answer rightly, and are told of."""
    for each in ("aiohttp", "fastapi", "orjson", "uvicorn"):
        pytest.importorskip(each)
    out = tmp_path / "new" / "gpu.json"

    command.main(["--dry", f"--out={out}"])
    cells = json.loads(out.read_text())["cells"]
    assert [each["cell"]["name"] for each in cells] == [each.name for each in DRY]
    sides = [each[side] for each in cells for side in ("direct", "abproxy")]
    assert all(side["calls_per_s"] > 0 and not side["errors"] for side in sides)
    assert "no card, a model that sleeps" in capsys.readouterr().out
