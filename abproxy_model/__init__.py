"""
A real embedding model behind TEI's API, in a process of its own.

It is what the proxy talks to when there is no GPU, no Rust and no download at
hand: ``twistd abproxy-model``.
It never batches across requests; that is the proxy's job.
"""

__all__ = ()
