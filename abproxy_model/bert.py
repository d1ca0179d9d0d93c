"""
BERT's forward pass in numpy: token ids in, one vector per token out.

float32 throughout, one padded group of texts at a time, no pooling.
Padding never reaches a result: padded keys get no attention, padded rows are
cut off.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from abproxy_model.gelu import gelu

__all__ = ("Bert",)

_Floats = NDArray[np.float32]
_HEADS = 12
_EPSILON = np.float32(1e-12)
_NEVER = np.float32(-1e9)


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
        """How long a vector is."""
        return int(self._words.shape[1])

    @property
    def vocabulary(self) -> int:
        """How many token ids there are."""
        return int(self._words.shape[0])

    def __call__(self, texts: Sequence[Sequence[int]]) -> list[_Floats]:
        """One vector for each token of *texts*, computed as one padded group."""
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
    return np.where(padded, _NEVER, np.float32(0))[:, None, None, :]


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


_PROJECTIONS = ("query", "key", "value")


def _dense(weights: Mapping[str, _Floats], name: str) -> _Dense:
    return _Dense(
        weight=np.ascontiguousarray(weights[f"{name}.weight"].T),
        bias=weights[f"{name}.bias"],
    )


def _norm(weights: Mapping[str, _Floats], name: str) -> _LayerNorm:
    return _LayerNorm(weight=weights[f"{name}.weight"], bias=weights[f"{name}.bias"])
