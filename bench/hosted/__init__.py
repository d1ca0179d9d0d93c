"""
A hosted API for embeddings, simulated: with an account, its limits and its headers.

The rules are those that OpenAI describes (https://platform.openai.com/docs/guides/
rate-limits): requests and tokens of a minute, which come back little by little, both
stated in each answer.  `python -m bench.hosted` measures what such an account carries
with abproxy in front of it, and without.
"""

from bench.hosted.rules import Account

__all__ = ["Account"]
