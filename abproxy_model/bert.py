"""
BERT's forward pass in numpy: token ids in, one vector per token out.

float32 throughout, one padded group of texts at a time, no pooling.
Padding never reaches a result: padded keys get no attention, padded rows are
cut off. A group has texts of similar length, and not more than fit the cache:
padding is work for nothing, and so are multiplications that wait for memory.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

__all__ = ("Bert", "gelu", "in_groups", "plan_groups")

Text = TypeVar("Text")
Result = TypeVar("Result")

_Floats = NDArray[np.float32]
_HEADS = 12
_PROJECTIONS = ("query", "key", "value")
_EPSILON = np.float32(1e-12)
_MASKED = np.float32(-1e9)

_MAX_GROUP_TOKENS = 512
_MAX_PADDED = 1.25
"""A group may be this much larger than the tokens that are really in it."""

_SLACK_TOKENS = 16
"""Padding that costs less than one more pass over the weights."""

_GELU_CHUNK = 32_768
"""Numbers activated at a time: their scratch row fits a core's cache."""

_GELU_CUBIC = np.float32(0.044715)
_GELU_SCALE = np.float32((2 / np.pi) ** 0.5)
_HALF = np.float32(0.5)
_ONE = np.float32(1)


@frozen(kw_only=True)
class _Dense:
    weight: _Floats
    bias: _Floats

    def __call__(self, values: _Floats) -> _Floats:
        result = values @ self.weight
        result += self.bias
        return result


@frozen(kw_only=True)
class _LayerNorm:
    weight: _Floats
    bias: _Floats

    def __call__(self, values: _Floats) -> _Floats:
        values = values - values.mean(axis=-1, keepdims=True)
        variance = np.einsum("ij,ij->i", values, values)[:, None] / values.shape[1]
        values /= np.sqrt(variance + _EPSILON)
        values *= self.weight
        values += self.bias
        return values


@frozen(kw_only=True)
class _Layer:
    query_key_value: _Dense
    attention: _Dense
    attention_norm: _LayerNorm
    inner: _Dense
    outer: _Dense
    norm: _LayerNorm


@frozen(kw_only=True)
class Bert:
    """The encoder, with weights named as in a BERT checkpoint."""

    _words: _Floats
    _positions: _Floats
    _norm: _LayerNorm
    _layers: Sequence[_Layer]

    @classmethod
    def from_weights(cls, weights: Mapping[str, _Floats]) -> "Bert":
        """Arrange a checkpoint's *weights* for the forward pass."""
        positions = weights["embeddings.position_embeddings.weight"]
        return cls(
            words=weights["embeddings.word_embeddings.weight"],
            positions=positions + weights["embeddings.token_type_embeddings.weight"][0],
            norm=_norm(weights, "embeddings.LayerNorm"),
            layers=[_layer(weights, i) for i in range(_layer_count(weights))],
        )

    @property
    def dimensions(self) -> int:
        """The length of a vector."""
        return int(self._words.shape[1])

    @property
    def vocabulary(self) -> int:
        """The number of token ids."""
        return int(self._words.shape[0])

    def __call__(self, texts: Sequence[Sequence[int]]) -> list[_Floats]:
        """One vector for each token of *texts*."""
        return in_groups(texts, self._forward)

    def _forward(self, texts: Sequence[Sequence[int]]) -> list[_Floats]:
        """Compute *texts* as one padded group."""
        lengths = [len(ids) for ids in texts]
        shape = (len(texts), max(lengths))
        ids = np.zeros(shape, dtype=np.intp)
        for row, text in zip(ids, texts, strict=True):
            row[: len(text)] = text
        bias = _attention_bias(lengths, shape[1])
        hidden = self._norm(
            (self._words[ids] + self._positions[: shape[1]]).reshape(ids.size, -1)
        )
        for layer in self._layers:
            hidden = self._run(layer, hidden, shape, bias)
        rows = hidden.reshape(*shape, -1)
        return [row[:length] for row, length in zip(rows, lengths, strict=True)]

    def _run(
        self, layer: _Layer, hidden: _Floats, shape: tuple[int, int], bias: _Floats
    ) -> _Floats:
        mixed = layer.attention(_attend(layer.query_key_value(hidden), shape, bias))
        mixed += hidden
        hidden = layer.attention_norm(mixed)
        inner = layer.inner(hidden)
        gelu(inner)
        outer = layer.outer(inner)
        outer += hidden
        return layer.norm(outer)


def _attend(projected: _Floats, shape: tuple[int, int], bias: _Floats) -> _Floats:
    """Softmax(QK^T)V for every head; the scale is already in the weights of Q."""
    heads = projected.reshape(*shape, 3, _HEADS, -1).transpose(2, 0, 3, 1, 4)
    query, key, value = np.ascontiguousarray(heads)
    scores = query @ key.swapaxes(-1, -2)
    scores += bias
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    mixed: _Floats = (scores @ value).transpose(0, 2, 1, 3)
    return mixed.reshape(shape[0] * shape[1], -1)


def _attention_bias(lengths: Sequence[int], longest: int) -> _Floats:
    padded = np.arange(longest) >= np.array(lengths)[:, None]
    return np.where(padded, _MASKED, np.float32(0))[:, None, None, :]


def _layer_count(weights: Mapping[str, _Floats]) -> int:
    return sum(name.endswith(".output.dense.bias") for name in weights) // 2


def _layer(weights: Mapping[str, _Floats], index: int) -> _Layer:
    name = f"encoder.layer.{index}"
    return _Layer(
        query_key_value=_projection(weights, f"{name}.attention.self"),
        attention=_dense(weights, f"{name}.attention.output.dense"),
        attention_norm=_norm(weights, f"{name}.attention.output.LayerNorm"),
        inner=_dense(weights, f"{name}.intermediate.dense"),
        outer=_dense(weights, f"{name}.output.dense"),
        norm=_norm(weights, f"{name}.output.LayerNorm"),
    )


def _projection(weights: Mapping[str, _Floats], name: str) -> _Dense:
    """Q, K and V as one matrix, so that they take one multiplication."""
    query, key, value = (_dense(weights, f"{name}.{n}") for n in _PROJECTIONS)
    scale = np.float32((query.weight.shape[1] / _HEADS) ** -0.5)
    return _Dense(
        weight=np.hstack([query.weight * scale, key.weight, value.weight]),
        bias=np.hstack([query.bias * scale, key.bias, value.bias]),
    )


def _dense(weights: Mapping[str, _Floats], name: str) -> _Dense:
    return _Dense(
        weight=np.ascontiguousarray(weights[f"{name}.weight"].T),
        bias=weights[f"{name}.bias"],
    )


def _norm(weights: Mapping[str, _Floats], name: str) -> _LayerNorm:
    return _LayerNorm(weight=weights[f"{name}.weight"], bias=weights[f"{name}.bias"])


def gelu(values: _Floats) -> None:
    """
    Replace contiguous *values* by their GELU.

    GELU(x) = x / 2 * (1 + erf(x / sqrt 2)), in the tanh approximation of its
    authors (Hendrycks and Gimpel, 2016, section 2). It is what TEI computes:
    with it the recorded vectors are met to 1e-6, with the exact erf only to 3e-4.
    """
    flat = values.reshape(-1)
    for start in range(0, flat.size, _GELU_CHUNK):
        chunk = flat[start : start + _GELU_CHUNK]
        factor = chunk * chunk
        factor *= _GELU_CUBIC
        factor += _ONE
        factor *= chunk
        factor *= _GELU_SCALE
        np.tanh(factor, out=factor)
        factor += _ONE
        factor *= _HALF
        chunk *= factor


def in_groups(
    texts: Sequence[Sequence[Text]],
    compute: Callable[[list[Sequence[Text]]], list[Result]],
) -> list[Result]:
    """Run *compute* on groups of *texts* and put the results in the texts' order."""
    results: dict[int, Result] = {}
    for group in plan_groups([len(text) for text in texts]):
        found = compute([texts[index] for index in group])
        results.update(zip(group, found, strict=True))
    return [results[index] for index in range(len(texts))]


def plan_groups(lengths: Sequence[int]) -> list[list[int]]:
    """Indices of *lengths*, shortest first, cut into groups."""
    groups: list[list[int]] = []
    tokens = 0
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        longest = lengths[index]
        if groups and _fits(len(groups[-1]) + 1, longest, tokens + longest):
            groups[-1].append(index)
            tokens += longest
        else:
            groups.append([index])
            tokens = longest
    return groups


def _fits(count: int, longest: int, tokens: int) -> bool:
    padded = count * longest
    return (
        padded <= _MAX_GROUP_TOKENS and padded <= tokens * _MAX_PADDED + _SLACK_TOKENS
    )
