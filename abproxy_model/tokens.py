"""
Text to token ids and back, by TEI's rules.

The tokenizer is never changed after loading, so any thread may use it:
truncation is done on the encoding, not by setting it on the tokenizer.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrs import frozen
from tokenizers import Encoding, Tokenizer

from abproxy_model.errors import BackendError, EmptyError, ValidationError

__all__ = ("Options", "Tokens")

Input = str | Sequence[int]

_CHARACTERS_PER_TOKEN = 250
"""TEI cuts, or refuses, texts longer than this for each token allowed."""


@frozen(kw_only=True)
class Options:
    """The options for making tokens of the inputs of a request."""

    truncate: bool = True
    direction: str = "right"
    prompt_name: str | None = None


_DEFAULTS = Options()


@frozen(kw_only=True)
class Tokens:
    """A tokenizer with the limits of its model."""

    _tokenizer: Tokenizer
    max_input_length: int
    vocabulary: int
    special: bool
    """Whether the model wants its special tokens around a text."""

    @classmethod
    def from_file(cls, path: Path, **limits: Any) -> "Tokens":
        """Load the tokenizer; padding and truncation set in its file are dropped."""
        tokenizer = Tokenizer.from_file(str(path))
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return cls(tokenizer=tokenizer, **limits)

    def encode(self, item: Input, options: Options = _DEFAULTS) -> list[int]:
        """
        The token ids the model computes for *item*.

        Raises:
            ModelError: the item is empty or too long, or its prompt is unknown.
        """
        _refuse_empty(item, "inputs")
        _refuse_prompt(options.prompt_name)
        if isinstance(item, str):
            text = self._within_characters(item, truncate=options.truncate)
            special = self.special
        else:
            # Ids are decoded and read again, as TEI does.
            text = self._text(item)
            special = False
        encoding = self._encoding(text, options, special=special)
        if len(encoding) > self.max_input_length:
            raise ValidationError(
                f"Input validation error: `inputs` must have less than "
                f"{self.max_input_length} tokens. Given: {len(encoding)}",
                counted_as="tokenization",
            )
        return list(encoding.ids)

    def tokenize(
        self, text: str, *, special: bool, prompt_name: str | None
    ) -> list[dict[str, Any]]:
        """Return the answer of /tokenize for *text*."""
        _refuse_empty(text, "inputs")
        _refuse_prompt(prompt_name)
        text = self._within_characters(text, truncate=False)
        encoding = self._tokenizer.encode(text, add_special_tokens=special)
        return _token_objects(encoding, text)

    def decode(self, ids: Sequence[int], *, skip_special: bool) -> str:
        """Return the answer of /decode for *ids*."""
        _refuse_empty(ids, "input_ids")
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=skip_special))

    def _encoding(self, text: str, options: Options, *, special: bool) -> Encoding:
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        if options.truncate:
            room = self.max_input_length - special * self._special_count()
            encoding.truncate(room, direction=options.direction)
        return self._tokenizer.post_process(encoding, add_special_tokens=special)

    def _special_count(self) -> int:
        return int(self._tokenizer.num_special_tokens_to_add(is_pair=False))

    def _text(self, ids: Sequence[int]) -> str:
        unknown = next((i for i in ids if i >= self.vocabulary), None)
        if unknown is not None:
            raise BackendError(
                f"Backend error: token id {unknown} is not one of the "
                f"{self.vocabulary} the model knows",
                counted_as="inference",
            )
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))

    def _within_characters(self, text: str, *, truncate: bool) -> str:
        limit = self.max_input_length * _CHARACTERS_PER_TOKEN
        if len(text) <= limit:
            return text
        if truncate:
            return text[:limit]
        raise ValidationError(
            f"Input validation error: `inputs` must have less than {limit} "
            f"characters. Given: {len(text)}",
            counted_as="tokenization",
        )


def _refuse_empty(item: Input, name: str) -> None:
    if not item:
        raise EmptyError(
            f"Input validation error: `{name}` cannot be empty",
            counted_as="tokenization",
        )


def _refuse_prompt(name: str | None) -> None:
    if name is not None:
        raise ValidationError(
            f"Input validation error: `default-prompt-name` is set to `{name}` but no "
            f"prompts were found in the Sentence Transformers configuration",
            counted_as="tokenization",
        )


def _token_objects(encoding: Encoding, text: str) -> list[dict[str, Any]]:
    return [
        {
            "id": token_id,
            "text": token if special else text[start:stop],
            "special": bool(special),
            "start": None if special else len(text[:start].encode()),
            "stop": None if special else len(text[:stop].encode()),
        }
        for token_id, token, special, (start, stop) in zip(
            encoding.ids,
            encoding.tokens,
            encoding.special_tokens_mask,
            encoding.offsets,
            strict=True,
        )
    ]
