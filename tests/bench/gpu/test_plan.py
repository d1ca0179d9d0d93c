"""What is measured: cells that differ, and texts that nobody has seen before."""

import pytest

from bench.gpu.model import COUNTS, TOKENS, sizes
from bench.gpu.plan import CELLS, DIFFERENT_CALLS, DRY, Cell, cells_of, groups
from bench.gpu.words import texts, tokenizer, tokens_in


def test_each_cell_has_a_name_of_its_own() -> None:
    """By which it can be chosen."""
    assert len({each.name for each in CELLS}) == len(CELLS)
    assert Cell(server="naive", clients=32).name == "naive-minilm-1x10-32"


def test_all_kinds_of_calls_are_there() -> None:
    """Short and long texts, one and several, few clients and many, both models."""
    assert {each.words for each in CELLS} == {10, 100, 400}
    assert {each.inputs for each in CELLS} == {1, 8}
    assert {each.clients for each in CELLS} >= {1, 32, 200, 1000}
    assert {each.shape for each in CELLS} == {"minilm", "large"}


@pytest.mark.parametrize("cells", [CELLS, DRY])
def test_a_server_is_started_once(cells: list[Cell]) -> None:
    """Its cells stand together."""
    in_groups = [each for group in groups(cells).values() for each in group]

    assert in_groups == [*cells]


def test_many_clients_are_given_time() -> None:
    """A thousand that are served one by one wait for seconds."""
    [few, many] = cells_of("naive", (200, 1000))

    assert few.seconds < 20 <= many.seconds


def test_each_call_has_texts_of_its_own() -> None:
    """No server can answer from a cache."""
    cell = Cell(server="naive", clients=1, inputs=8)
    seen = [text for at in range(DIFFERENT_CALLS) for text in cell.texts(at)]

    assert len(set(seen)) == 8 * DIFFERENT_CALLS
    assert cell.texts(7) == cell.texts(7)


@pytest.mark.parametrize("words", [1, 10, 100, 400])
def test_texts_have_as_many_tokens_as_is_said(words: int) -> None:
    """Each fifth word has two, and both ends are marked."""
    pytest.importorskip("tokenizers")
    known = tokenizer()
    encoded = known.encode_batch(texts(words, 20))

    assert {len(each.ids) for each in encoded} == {tokens_in(words)}
    assert not any("[UNK]" in each.tokens for each in encoded)


def test_a_step_has_a_bound() -> None:
    """In tokens: of long texts there are fewer in it."""
    assert sizes(10) == [*COUNTS]
    assert max(sizes(400)) * tokens_in(400) <= TOKENS
    assert sizes(400, (1, 8, 512)) == [1, 8]
