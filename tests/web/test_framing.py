"""Both paths read odd and ambiguous requests alike, and let nothing slip through."""

import re
from collections.abc import Sequence

import pytest
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import Request

from bench.attack.bodies import SMALL
from bench.attack.client import call
from bench.attack.corpus import CASES, SMUGGLED, Case
from support.proxy import in_memory_proxy

pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
"""The upstream in memory leaves files of requests that break off."""

OF_THE_MOMENT = re.compile(rb"\r\n(?:Date|X-Request-Id): [^\r]*")
KINDS = sorted({case.name.partition(":")[0] for case in CASES})
JSON = [Case(case.name, call(case.data)) for case in SMALL]


class Tap(Resource):
    """Keeps what it was asked."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[bytes, bytes]] = []

    def render(self, request: Request) -> bytes:
        """Answer with a row, and keep the request as text."""
        lines = sorted(request.requestHeaders.getAllRawHeaders())
        body = request.content.read()
        told = b"%b %b %r" % (request.method, request.uri, lines)
        told = re.sub(rb"\(b'X-Request-Id', [^)]*\)", b"", told)
        self.asked.append((told, body))
        request.content.close()
        return b"[[1]]"


def outcome(
    case: Case, *, is_fast: bool
) -> tuple[bytes, Sequence[tuple[bytes, bytes]]]:
    """Send a case; return what the client gets, and what the upstream is asked."""
    tap = Tap()
    proxy = in_memory_proxy(tap, is_fast=is_fast)
    channel = proxy.site.buildProtocol(None)
    transport = StringTransport()
    channel.makeConnection(transport)
    channel.dataReceived(case.data)
    for _ in range(3):
        proxy.flush()
        proxy.clock.advance(0.1)
    channel.connectionLost(Failure(ConnectionDone()))
    return OF_THE_MOMENT.sub(b"", transport.value()), tap.asked


@pytest.mark.parametrize("kind", KINDS)
def test_both_paths_read_odd_requests_alike(kind: str) -> None:
    """The same bytes for the client, and the same requests for the upstream."""
    cases = [case for case in CASES if case.name.startswith(f"{kind}:")]

    fast = {case.name: outcome(case, is_fast=True) for case in cases}

    assert fast == {case.name: outcome(case, is_fast=False) for case in cases}


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_smuggled_in_an_odd_request(kind: str) -> None:
    """Neither a request nor a header line."""
    cases = [case for case in CASES if case.name.startswith(f"{kind}:")]

    asked = {case.name: outcome(case, is_fast=True)[1] for case in cases}

    assert not [
        name
        for name, requests in asked.items()
        if any(SMUGGLED in told.lower() for told, _ in requests)
    ]
    assert any(asked.values())


def test_both_paths_read_odd_json_alike() -> None:
    """Also what is relayed because it may be read in two ways."""
    fast = {case.name: outcome(case, is_fast=True) for case in JSON}

    assert fast == {case.name: outcome(case, is_fast=False) for case in JSON}
