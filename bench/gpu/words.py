"""
Texts of made-up words, and a tokenizer that knows these words.

Each fifth word has an ending that the vocabulary has only as a piece of its
own, so that a text has 1.2 tokens for each word, about as English has.
"""

from collections.abc import Sequence
from itertools import product
from random import Random
from typing import Any

__all__ = ["WORDS", "texts", "tokenizer", "tokens_in"]

SYLLABLES = [f"{one}{two}" for one, two in product("bdfgklmnprstvz", "aeiou")]
WORDS = [f"{one}{two}" for one, two in product(SYLLABLES, SYLLABLES)]
ENDING = "ns"
EACH_ENDING = 5
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
MOST_TOKENS = 512


def texts(words: int, count: int, seed: int = 0) -> list[str]:
    """Write *count* texts of so many words; another seed gives other ones."""
    random = Random(f"{words} {seed}")  # noqa: S311
    return [_text(random.choices(WORDS, k=words)) for _ in range(count)]


def _text(words: Sequence[str]) -> str:
    return " ".join(
        word if at % EACH_ENDING else word + ENDING
        for at, word in enumerate(words, start=1)
    )


def tokens_in(words: int) -> int:
    """Say how many tokens a text of so many words has."""
    return words + words // EACH_ENDING + 2


def tokenizer() -> Any:
    """Make a tokenizer as BERT has it, with our words for a vocabulary."""
    from tokenizers import (  # noqa: PLC0415
        Tokenizer,
        models,
        normalizers,
        pre_tokenizers,
        processors,
    )

    vocabulary = {word: at for at, word in enumerate([*SPECIAL, *WORDS, f"##{ENDING}"])}
    made = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))  # noqa: S106
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.BertProcessing(
        ("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"])
    )
    made.enable_truncation(MOST_TOKENS)
    return made
