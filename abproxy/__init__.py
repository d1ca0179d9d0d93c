"""
abproxy: an auto-batching proxy for embedding servers.

Many clients each ask for one or a few embeddings; an inference server is far
cheaper per item when it gets them together.  This package stands in between
and answers every client as if it were the only one.
"""

__version__ = "26.11.0"
