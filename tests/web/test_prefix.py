"""PATH_PREFIX: a load balancer leaves its own part of the path in place."""

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.web.resource import Resource
from twisted.web.server import Request

from abproxy.errors import SettingsError
from abproxy.settings.settings import settings_from
from support.proxy import InMemoryProxy, wired, without

BODY = b'{"inputs":"a"}'


class Named(Resource):
    """Answers with the path that it was asked for."""

    isLeaf = True

    def render(self, request: Request) -> bytes:
        """Answer any method."""
        return request.uri


@pytest.fixture(params=["fast", "ordinary"])
def here(request: pytest.FixtureRequest) -> Iterator[InMemoryProxy]:
    """Give a proxy with a prefix, on either path."""
    paths = without() if request.param == "fast" else without("server")
    with wired(Named(), path_prefix="/emb", fast_paths=paths) as proxy:
        yield proxy


@pytest.mark.parametrize("path", ["/emb/embed", "/embed"])
def test_a_call_is_batched_with_the_prefix_and_without(
    here: InMemoryProxy, path: str
) -> None:
    """And the inference server is asked for its own route."""
    client = here.connect()
    client.embed(BODY, path=path)

    [sent] = here.upstream.open
    assert sent.request.path == b"/embed"
    here.answer_all()
    assert client.answers()[0].status == 200


@pytest.mark.parametrize(
    ("path", "known"),
    [
        ("/emb/info?x=1", "/info?x=1"),
        ("/embassy", "/embassy"),
        ("/emb", "/emb"),
        ("/emb/emb/x", "/emb/x"),
        ("/emb//x", "//x"),
    ],
)
def test_what_is_relayed_has_no_prefix(
    here: InMemoryProxy, path: str, known: str
) -> None:
    """Only that part of the path is taken off, once."""
    assert here.ask("GET", path).body == known.encode()


@pytest.mark.parametrize("path", ["/emb/-/healthy", "/-/healthy"])
def test_our_own_pages_are_at_both_places(here: InMemoryProxy, path: str) -> None:
    """A health check asks next to the balancer, not through it."""
    assert here.ask("GET", path).json == {"healthy": True}


@pytest.mark.parametrize("value", ["emb", "/", "//", "/a b", "/a?b", "/a//b", "/é"])
def test_what_is_no_beginning_of_a_path_is_refused(value: str) -> None:
    """One line of error."""
    with pytest.raises(SettingsError, match="expected the beginning of a path"):
        settings_from({"path-prefix": value}, {}, {})


def test_a_slash_at_its_end_counts_for_nothing() -> None:
    """Balancers write it either way."""
    chosen: Any = settings_from({"path-prefix": "/a/b/"}, {}, {})

    assert chosen.path_prefix == "/a/b"


class Moved(Resource):
    """Leads to another page."""

    isLeaf = True

    def render(self, request: Request) -> bytes:
        """Answer any method."""
        request.setResponseCode(308)
        request.setHeader(b"Location", b"/docs/")
        return b""


@pytest.mark.parametrize(
    ("asked", "led"), [("/emb/docs", "/emb/docs/"), ("/docs", "/docs/")]
)
def test_what_leads_to_another_page_leads_through_the_balancer(
    asked: str, led: str
) -> None:
    """A client that has asked next to it stays there."""
    with wired(Moved(), path_prefix="/emb") as proxy:
        assert proxy.ask("GET", asked).header("Location") == led
