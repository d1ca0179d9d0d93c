"""
A BERT with random weights on the card, as servers written in Python run it.

As files, for servers that read those:

    python -m bench.gpu.bert minilm FOLDER
"""

import sys
from collections.abc import Sequence
from typing import Any

import torch
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from bench.gpu.model import COUNTS, TOKENS
from bench.gpu.shapes import SHAPES, Shape
from bench.gpu.words import tokenizer

__all__ = ["Bert", "make", "save"]

WIDTHS = (16, 32, 64, 128, 256, 512)
"""Tokens that texts in a step are filled up to."""


def make(shape: Shape, device: str = "cuda") -> BertModel:
    """Make the model, in half precision on a card."""
    config = BertConfig(
        num_hidden_layers=shape.layers,
        hidden_size=shape.size,
        num_attention_heads=shape.heads,
        intermediate_size=shape.inner,
        attn_implementation="sdpa",
    )
    torch.manual_seed(0)
    with torch.device(device):
        made = BertModel(config, add_pooling_layer=False)
    return made.to(torch.float16 if device == "cuda" else torch.float32).eval()


class Bert:
    """Texts in, normalised means of their tokens out."""

    def __init__(self, shape: Shape, device: str = "cuda") -> None:
        self._device = device
        self._model = make(shape, device)
        self._tokenizer = tokenizer()

    def encode(self, texts: Sequence[str]) -> Any:
        """Tokenize, fill up, compute step by step, and fetch the rows."""
        tokens = [each.ids for each in self._tokenizer.encode_batch(list(texts))]
        longest = max(map(len, tokens))
        width = next(each for each in WIDTHS if each >= longest)
        most = min(TOKENS // width, COUNTS[-1])
        steps = [tokens[at : at + most] for at in range(0, len(tokens), most)]
        rows = [self._step(step, width)[: len(step)] for step in steps]
        return torch.cat(rows).cpu().numpy()

    @torch.inference_mode()
    def _step(self, tokens: Sequence[Sequence[int]], width: int) -> torch.Tensor:
        count = next(each for each in COUNTS if each >= len(tokens))
        filled = [[*each, *[0] * (width - len(each))] for each in tokens]
        filled += [[0] * width] * (count - len(tokens))
        ids = torch.tensor(filled).to(self._device)
        mask = ids.ne(0).long()
        mask[len(tokens) :, 0] = 1  # a mean of nothing is no number
        hidden = self._model(input_ids=ids, attention_mask=mask).last_hidden_state
        weights = mask.unsqueeze(-1).to(hidden.dtype)
        means = (hidden * weights).sum(1) / weights.sum(1)
        return torch.nn.functional.normalize(means.float(), dim=-1)


def save(shape: Shape, folder: str) -> None:
    """Write model and tokenizer as other servers read them."""
    make(shape, "cpu").half().save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer(),
        model_max_length=512,
        pad_token="[PAD]",  # noqa: S106
        unk_token="[UNK]",  # noqa: S106
        cls_token="[CLS]",  # noqa: S106
        sep_token="[SEP]",  # noqa: S106
        mask_token="[MASK]",  # noqa: S106
    ).save_pretrained(folder)


if __name__ == "__main__":
    save(SHAPES[sys.argv[1]], sys.argv[2])
