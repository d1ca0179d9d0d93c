"""Text to token ids."""

import pytest

from abproxy_model.errors import BackendError, ValidationError
from abproxy_model.model import Model
from abproxy_model.tokens import Options

LONG = "first " + "middle " * 400 + "last"


def test_truncation_on_the_right_keeps_the_beginning(minilm: Model) -> None:
    """By default the end of a long text is cut off."""
    ids = minilm.tokens.encode(LONG, Options())

    assert len(ids) == 256
    assert ids[:2] == minilm.tokens.encode("first", Options())[:2]
    assert ids[-1] == 102


def test_truncation_on_the_left_keeps_the_end(minilm: Model) -> None:
    """A text may be cut at its beginning instead."""
    ids = minilm.tokens.encode(LONG, Options(direction="left"))

    assert len(ids) == 256
    assert ids[0] == 101
    assert ids[-2:] == minilm.tokens.encode("last", Options())[-2:]


def test_a_prompt_that_is_not_configured_is_refused(minilm: Model) -> None:
    """TEI's words for a model without prompts."""
    with pytest.raises(ValidationError, match="`query` but no prompts were found"):
        minilm.tokens.encode("a", Options(prompt_name="query"))


def test_a_text_out_of_all_proportion_is_refused_before_it_is_read(
    minilm: Model,
) -> None:
    """A text with more characters than tokens could need is not tokenized."""
    with pytest.raises(ValidationError, match="less than 64000 characters"):
        minilm.tokens.encode("a" * 64_001, Options(truncate=False))


def test_a_token_that_does_not_exist_is_the_senders_error(minilm: Model) -> None:
    """An id outside the vocabulary ends its own request, and nothing else."""
    with pytest.raises(BackendError, match="token id 999999"):
        minilm.tokens.encode([999_999], Options())
