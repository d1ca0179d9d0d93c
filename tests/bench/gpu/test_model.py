"""The limit and the model that only sleeps."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from bench.gpu import limit
from bench.gpu.model import COUNTS, Pretended, load, warm
from bench.gpu.plan import DRY, Cell
from bench.gpu.shapes import SHAPES
from bench.wire.errors import CannotMeasure


class Counting:
    """A model that notes how many texts it is given."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def encode(self, texts: Sequence[str]) -> list[list[float]]:
        self.steps.append(len(texts))
        return [[0.0]] * len(texts)


def test_each_shape_is_met_before_anything_is_measured() -> None:
    """All numbers of texts, for each length."""
    model = Counting()
    warm(model, [10, 10])

    assert model.steps == [*COUNTS, *COUNTS]


def test_the_limit_is_measured_for_several_sizes() -> None:
    """Each is warm, and those that are no step are left out."""
    model = Counting()
    found = limit.limit_of(model, 400, 0)

    assert model.steps == [1, 8, 32]
    assert [*found] == ["1", "8", "32"]


def test_what_has_to_be_known_follows_from_the_cells() -> None:
    """Each model with the lengths that it is asked for."""
    cells = [
        Cell(server="naive", clients=1, words=100),
        Cell(server="batcher", clients=1),
        Cell(server="batcher", clients=2, shape="large"),
    ]

    assert limit.wanted(cells) == ["minilm=10,100", "large=10"]


def test_it_is_measured_in_a_process_of_its_own() -> None:
    """Which tells what card it was."""
    found = limit.measured(DRY, dry=True)

    assert found["card"] == "no card, a model that sleeps"
    assert set(found["limits"]["minilm"]) == {"10", "100"}
    assert min(found["limits"]["minilm"]["10"].values()) > 0


def test_without_pytorch_it_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In the words of Python."""
    (tmp_path / "torch.py").write_text("raise ImportError('no torch here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    with pytest.raises(CannotMeasure, match="no torch here"):
        limit.measured(DRY, dry=False)


def test_a_pretended_model_tells_texts_apart() -> None:
    """So that an answer to another call is noticed."""
    one, other, again = load("minilm", dry=True).encode(["a", "b", "a"])

    assert isinstance(load("minilm", dry=True), Pretended)
    assert len(one) == SHAPES["minilm"].size
    assert one == again != other
