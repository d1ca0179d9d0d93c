"""
The shapes of two models that are much used, one small and one large.

Their weights are drawn at random: what a server has to compute does not depend
on them, and nothing has to be fetched.
"""

from collections.abc import Mapping

from attrs import frozen

__all__ = ["SHAPES", "Shape"]


@frozen(kw_only=True)
class Shape:
    """The sizes of a BERT."""

    title: str
    layers: int
    size: int
    """Of what it computes for a text, and for each token in between."""

    heads: int
    inner: int


SHAPES: Mapping[str, Shape] = {
    "minilm": Shape(title="MiniLM-L6", layers=6, size=384, heads=12, inner=1536),
    "large": Shape(title="BERT large", layers=24, size=1024, heads=16, inner=4096),
}
