"""Our certificate for the upstream, and the issuers that are trusted, in files."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from attrs import define
from twisted.internet import reactor
from twisted.internet.defer import maybeDeferred
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    trustRootFromCertificates,
)
from twisted.logger import LogEvent, capturedLogs, formatEvent
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from abproxy.errors import HandshakeFailed, SettingsError
from abproxy.http.certificates import parse_identity
from abproxy.http.messages import UpstreamRequest
from abproxy.settings.settings import settings_from
from abproxy.upstream import tls
from abproxy.upstream.agent import make_agent
from abproxy.upstream.connections import make_pool
from abproxy.upstream.endpoints import EndpointFactory, uri_of
from abproxy.upstream.fast.client import FastClient
from abproxy.upstream.fast.connection import ConnectionPool
from abproxy.upstream.tls import TlsFiles, VerifyingPolicy
from abproxy.upstream.treq_client import TreqClient, make_treq
from support.certificates import LOCAL, Files, certificate, issue
from support.client import turn
from support.processes import refusal
from support.proxy import in_front_of, paths_of
from support.upstream import make_upstream

CLIENTS = "fast", "treq"
ASK = UpstreamRequest(path=b"/embed", headers=(), body=b'{"inputs":["a"]}')


@pytest.fixture
def server(tmp_path: Path) -> Files:
    """Return the files of a server."""
    (tmp_path / "server").mkdir()
    return issue(tmp_path / "server")


@pytest.fixture
def own(tmp_path: Path) -> Files:
    """Return those of a client."""
    (tmp_path / "client").mkdir()
    return issue(tmp_path / "client")


@pytest.fixture
def logged() -> Iterator[list[LogEvent]]:
    """Give what is logged."""
    with capturedLogs() as events:
        yield events


class Echo(Resource):
    """Answers each request with what came, but for lines of the connection."""

    isLeaf = True

    def render(self, request: Request) -> bytes:
        """Answer."""
        lines = [
            b"%b: %b" % (name, value)
            for name, values in request.requestHeaders.getAllRawHeaders()
            for value in values
        ]
        return b"\n".join([request.method, request.uri, *lines, request.content.read()])


@define(kw_only=True)
class TlsServer:
    """A server with TLS, which may ask for a certificate."""

    files: Files
    clients: Files | None = None
    """Whose certificates it accepts; None if it asks for none."""

    port: Any = None

    def listen(self) -> "TlsServer":
        """Begin."""
        names = "CERT", "KEY"
        identity = parse_identity(
            names, self.files.cert.read_bytes(), self.files.key.read_bytes()
        )
        trust = None
        if self.clients:
            trust = trustRootFromCertificates(
                [Certificate.loadPEM(self.clients.authority.read_bytes())]
            )
        options = CertificateOptions(**identity, trustRoot=trust, enableSessions=True)
        listen: Any = reactor.listenSSL  # type: ignore[attr-defined]
        site = Site(Echo())
        site.timeOut = None
        self.port = listen(0, site, options, interface="127.0.0.1")
        return self

    @property
    def url(self) -> str:
        """Where it is."""
        return f"https://127.0.0.1:{self.port.getHost().port}"

    async def stop(self) -> None:
        """End."""
        await maybeDeferred(self.port.stopListening)


def policy(
    files: Files | None = None, authority: Path | None = None
) -> VerifyingPolicy:
    """Make a policy with the certificate in *files*, which trusts an *authority*."""
    return VerifyingPolicy(
        TlsFiles(
            cert=str(files.cert) if files else None,
            key=str(files.key) if files else None,
            authority=str(authority) if authority else None,
        )
    )


async def ask(url: str, client: str, chosen: VerifyingPolicy, times: int = 1) -> Any:
    """Send requests, each on a connection of its own; return the last outcome."""
    outcome: Any = None
    for _ in range(times):
        agent_pool, pool = make_pool(reactor, 1), ConnectionPool(reactor, 1)
        endpoints = EndpointFactory(reactor, 5, lambda: chosen)
        about: dict[str, Any] = {"base_url": url, "max_answer_bytes": 10_000}
        sender: Any
        if client == "treq":
            sender = TreqClient(
                http=make_treq(make_agent(agent_pool, endpoints)), **about
            )
        else:
            endpoint = endpoints.endpointForURI(uri_of(url.encode()))
            sender = FastClient(endpoint=endpoint, pool=pool, **about)
        upstream = make_upstream(sender.send, reactor, pool=pool, agent_pool=agent_pool)
        try:
            outcome = await upstream.send(ASK)
        except Exception as error:  # noqa: BLE001  the test looks at it
            outcome = error
        await (agent_pool.closeCachedConnections() or turn())
        await pool.close()
    return outcome


@pytest.mark.parametrize("client", CLIENTS)
@pytest_twisted.ensureDeferred
async def test_a_server_gets_the_certificate_that_it_asks_for(
    client: str, server: Files, own: Files
) -> None:
    """With those that lead to one it knows; without one the reason is told."""
    listening = TlsServer(files=server, clients=own).listen()

    answered = await ask(listening.url, client, policy(own, server.authority))
    refused = await ask(listening.url, client, policy(None, server.authority))
    await listening.stop()

    assert answered.status == 200
    assert isinstance(refused, HandshakeFailed)
    assert "UPSTREAM_TLS_CERT" in str(refused)


@pytest_twisted.ensureDeferred
async def test_both_clients_send_the_same_and_get_the_same(server: Files) -> None:
    """Byte for byte, with TLS as without."""
    listening = TlsServer(files=server).listen()
    chosen = policy(authority=server.authority)

    one, other = [await ask(listening.url, client, chosen) for client in CLIENTS]
    await listening.stop()

    assert one.body == other.body
    assert b"POST\n/embed\n" in one.body
    assert [line for line in one.headers if line[0] != b"Date"] == [
        line for line in other.headers if line[0] != b"Date"
    ]


@pytest.mark.parametrize("client", CLIENTS)
@pytest_twisted.ensureDeferred
async def test_only_the_named_issuers_are_trusted(
    client: str, server: Files, own: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They count in the place of those that the system trusts."""
    monkeypatch.setenv("SSL_CERT_FILE", str(server.authority))
    listening = TlsServer(files=server).listen()

    by_system = await ask(listening.url, client, policy())
    by_others = await ask(listening.url, client, policy(authority=own.authority))
    await listening.stop()

    assert by_system.status == 200
    assert isinstance(by_others, HandshakeFailed)
    assert "the issuer that is known by this name has not signed it" in str(by_others)


@pytest_twisted.ensureDeferred
async def test_files_that_change_count_for_the_next_connection(
    server: Files, own: Files, logged: list[LogEvent]
) -> None:
    """Those that cannot be used change nothing, and the log says why."""
    listening = TlsServer(files=server).listen()
    chosen = policy(authority=server.authority)
    trusted = server.authority.read_bytes()

    server.authority.write_bytes(b"nothing")
    former = [await ask(listening.url, client, chosen) for client in CLIENTS]
    shutil.copy(own.authority, server.authority)
    refused = [await ask(listening.url, client, chosen) for client in CLIENTS]
    server.authority.write_bytes(trusted)
    again = [await ask(listening.url, client, chosen) for client in CLIENTS]
    await listening.stop()

    assert [answer.status for answer in former + again] == [200] * 4
    assert all(isinstance(error, HandshakeFailed) for error in refused)
    why = "UPSTREAM_TLS_CA is no PEM file: no line in it begins a certificate"
    stay = "The former certificates for the inference server stay: "
    assert [formatEvent(each) for each in logged].count(stay + why) == 1


@pytest_twisted.ensureDeferred
async def test_a_later_handshake_resumes_the_session(
    server: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the certificate is looked at once, whichever client connects."""
    looked: list[int] = []
    verifying = tls._verifyCB

    def counting(*about: Any) -> Any:
        verify = verifying(*about)

        def look(made: Any, found: Any, code: int, depth: int, ok: bool) -> Any:  # noqa: FBT001
            if depth == 0:
                looked.append(code)
            return verify(made, found, code, depth, ok)

        return look

    monkeypatch.setattr(tls, "_verifyCB", counting)
    listening = TlsServer(files=server).listen()
    chosen = policy(authority=server.authority)

    for client in CLIENTS:
        answer = await ask(listening.url, client, chosen, times=3)
        assert answer.status == 200
    await listening.stop()

    assert len(looked) == 1


@pytest_twisted.ensureDeferred
async def test_a_session_is_forgotten_after_a_failed_handshake(
    server: Files, own: Files
) -> None:
    """What the server does not want any more is not shown again."""
    chosen = policy(authority=server.authority)
    first = TlsServer(files=server).listen()
    await ask(first.url, "fast", chosen)
    other = TlsServer(files=own).listen()
    refused = await ask(other.url, "fast", chosen)
    answer = await ask(first.url, "fast", chosen, times=2)
    await first.stop()
    await other.stop()

    assert isinstance(refused, HandshakeFailed)
    assert answer.status == 200


@pytest.mark.parametrize("client", CLIENTS)
@pytest_twisted.ensureDeferred
async def test_batches_relayed_requests_and_health_use_the_same_certificate(
    client: str, server: Files, own: Files
) -> None:
    """A server that asks for it is asked in no other way."""
    listening = TlsServer(files=server, clients=own).listen()
    files: dict[str, Any] = {
        "upstream_tls_cert": str(own.cert),
        "upstream_tls_key": str(own.key),
        "upstream_tls_ca": str(server.authority),
    }

    async with in_front_of(
        listening, {"fast_paths": paths_of(client), **files}
    ) as proxy:
        caller = await proxy.caller()
        batched = await caller.embed("a")
        relayed = await caller.post("/other", b"{}")
        healthy = await caller.get("/health")

    assert batched.body.startswith(b"POST\n/embed\n")
    assert relayed.body.startswith(b"POST\n/other\n")
    assert (batched.status, relayed.status, healthy.status) == (200, 200, 200)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("cert", None, "cannot read UPSTREAM_TLS_CERT, "),
        ("key", None, "cannot read UPSTREAM_TLS_KEY, "),
        ("authority", None, "cannot read UPSTREAM_TLS_CA, "),
        ("cert", b"x", "UPSTREAM_TLS_CERT is no PEM file"),
        ("key", certificate(LOCAL, 9)[0], "UPSTREAM_TLS_KEY is not the key of the"),
        ("authority", b"-----BEGIN x", "UPSTREAM_TLS_CA has no certificate that can"),
    ],
)
def test_files_that_cannot_be_used_are_an_error_at_the_start(
    own: Files, name: str, content: bytes | None, said: str
) -> None:
    """It says in one line what is wrong with which."""
    file: Path = getattr(own, name)
    file.unlink()
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(SettingsError) as caught:
        policy(own, own.authority)

    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("options", [[], ["--workers=2"]])
def test_a_start_with_such_files_ends_with_the_reason(
    options: list[str], tmp_path: Path
) -> None:
    """With workers too, of which none is started."""
    missing = tmp_path / "missing.pem"
    url = "--inference-service-url=https://127.0.0.1:1"

    code, said = refusal(
        tmp_path, url, "--port=0", f"--upstream-tls-ca={missing}", *options
    )

    assert code == 1
    assert f"cannot read UPSTREAM_TLS_CA, {missing}: No such file" in said


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"upstream_tls_cert": "a"},
            "UPSTREAM_TLS_CERT is set, but UPSTREAM_TLS_KEY is not",
        ),
        (
            {"upstream_tls_key": "a"},
            "UPSTREAM_TLS_KEY is set, but UPSTREAM_TLS_CERT is not",
        ),
        (
            {"upstream_tls_ca": "a", "inference_service_url": "http://a"},
            "UPSTREAM_TLS_CA is set, but INFERENCE_SERVICE_URL has no https://",
        ),
    ],
)
def test_settings_that_would_have_no_effect_are_refused(
    given: dict[str, str], said: str
) -> None:
    """Else the operator would believe in a protection that is not there."""
    options = {name.replace("_", "-"): value for name, value in given.items()}
    with pytest.raises(SettingsError) as caught:
        settings_from({"inference-service-url": "https://a", **options}, {}, {})

    assert str(caught.value) == said
