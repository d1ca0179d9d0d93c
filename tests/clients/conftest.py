"""
Two ways to one real server: directly, and through the proxy.

A client must not be able to tell them apart.  The server's rows are equal to
the last bit for equal texts, so nothing here needs a tolerance.
"""

from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from clients.ways import KEY, Ways
from support.processes import model_server, proxy

HEAVY = ("langchain_huggingface", "langchain_openai", "litellm", "llama_index")
"""Packages that `make test/clients` installs in a place of their own."""

collect_ignore = [] if all(map(find_spec, HEAVY)) else ["heavy"]


@pytest.fixture(scope="session")
def ways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ways]:
    """Give the ways to a server with its defaults."""
    folder = tmp_path_factory.mktemp("ways")
    with (
        model_server(folder / "model") as direct,
        # It is held for company so that clients that come together share.
        proxy(
            folder / "proxy", direct, "inference server has", "--max-wait-time=20"
        ) as proxied,
    ):
        yield Ways(direct=direct, proxied=proxied)


@pytest.fixture(scope="session")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ways]:
    """Give the ways to a server that wants a key and refuses long texts."""
    folder = tmp_path_factory.mktemp("strict")
    options = ("--auto-truncate=false", f"--api-key={KEY}")
    with (
        model_server(folder / "model", *options) as direct,
        proxy(folder / "proxy", direct, "wants a key", "--max-wait-time=20") as proxied,
    ):
        yield Ways(direct=direct, proxied=proxied)
