"""The port is opened first, and one that cannot be had is a clear line."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from cryptography.hazmat.primitives.asymmetric import x25519
from twisted.internet import reactor
from twisted.internet.defer import maybeDeferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
    connectProtocol,
)
from twisted.internet.interfaces import IStreamClientEndpoint

from abproxy.errors import SettingsError
from abproxy.web.listen import Listener, make_listener
from support.certificates import make_certificate
from support.client import ByteClient, turn
from support.upstream import ByteServer, answering


@pytest.fixture
def taken() -> Iterator[int]:
    """Return the number of a port that is in use."""
    with socket.create_server(("127.0.0.1", 0)) as ours:
        yield ours.getsockname()[1]


def number_of(port: Any) -> int:
    """Return which port it is."""
    number: int = port.getHost().port
    return number


async def is_served(listener: Listener, endpoint: Any) -> bool:
    """Return whether a client is answered; *endpoint* may need the port."""
    server = ByteServer(asked=answering(b"hello"))
    port = await listener.listen(server)
    there: IStreamClientEndpoint = endpoint(port)
    client = await connectProtocol(there, ByteClient())
    client.send(b"who is there?")
    answer = await client.until(b"hello")
    client.transport.loseConnection()
    await client.lost
    await server.peers[0].lost
    await maybeDeferred(port.stopListening)
    return answer == b"hello"


@pytest_twisted.ensureDeferred
async def test_port_0_is_any_free_port() -> None:
    """The kernel chooses."""
    listener = make_listener(reactor, "127.0.0.1", "0")

    assert await is_served(
        listener, lambda at: TCP4ClientEndpoint(reactor, "127.0.0.1", number_of(at))
    )


@pytest_twisted.ensureDeferred
async def test_a_client_that_comes_early_waits() -> None:
    """The port is open before there is a factory that serves."""
    listener: Any = make_listener(reactor, "127.0.0.1", "0")
    number = listener.socket.getsockname()[1]
    early = await connectProtocol(
        TCP4ClientEndpoint(reactor, "127.0.0.1", number), ByteClient()
    )
    early.send(b"who is there?")
    await turn()

    server = ByteServer(asked=answering(b"hello"))
    port = await listener.listen(server)

    assert await early.until(b"hello") == b"hello"
    early.transport.loseConnection()
    await early.lost
    await server.peers[0].lost
    await maybeDeferred(port.stopListening)


@pytest_twisted.ensureDeferred
async def test_it_listens_on_ipv6() -> None:
    """An address of either kind is an address."""
    listener = make_listener(reactor, "::1", "0")

    assert await is_served(
        listener, lambda at: TCP6ClientEndpoint(reactor, "::1", number_of(at))
    )


@pytest_twisted.ensureDeferred
async def test_a_name_is_an_address() -> None:
    """As `localhost` is."""
    listener = make_listener(reactor, "localhost", "0")

    assert await is_served(
        listener,
        lambda at: (
            TCP6ClientEndpoint if ":" in at.getHost().host else TCP4ClientEndpoint
        )(reactor, at.getHost().host, number_of(at)),
    )


@pytest_twisted.ensureDeferred
async def test_a_port_with_a_colon_is_an_endpoint() -> None:
    """With Twisted's own words for backlog and interface."""
    listener = make_listener(reactor, "unused", "tcp:0:interface=127.0.0.1:backlog=5")

    assert await is_served(
        listener, lambda at: TCP4ClientEndpoint(reactor, "127.0.0.1", number_of(at))
    )


@pytest_twisted.ensureDeferred
async def test_it_listens_on_a_unix_socket(tmp_path: Path) -> None:
    """And takes it away at the end."""
    path = tmp_path / "door.sock"
    listener = make_listener(reactor, "unused", f"unix:{path}")

    assert await is_served(listener, lambda _: UNIXClientEndpoint(reactor, str(path)))
    assert not path.exists()


@pytest.mark.parametrize("spell", ["{}", "tcp:{}:interface=127.0.0.1"])
def test_a_port_in_use_is_one_clear_line(spell: str, taken: int) -> None:
    """Which says what to change."""
    with pytest.raises(SettingsError, match=f"cannot listen on .*{taken}.*in use"):
        make_listener(reactor, "127.0.0.1", spell.format(taken))


@pytest.mark.parametrize("ip", ["192.0.2.1", "no.such.host.invalid", "not an address"])
def test_an_address_that_is_not_ours_is_one_clear_line(ip: str) -> None:
    """Before anything else is made."""
    with pytest.raises(SettingsError, match=f"cannot listen on {ip}"):
        make_listener(reactor, ip, "0")


def test_an_unknown_address_is_told_with_its_setting() -> None:
    """The name alone would not say where it comes from."""
    with pytest.raises(SettingsError, match="IP takes our own addresses"):
        make_listener(reactor, "no.such.host.invalid", "0")


@pytest.mark.parametrize("port", ["nonsense:1", "tcp:x", "tcp:0:colour=red"])
def test_an_endpoint_that_is_none_is_one_clear_line(port: str) -> None:
    """With what was given."""
    with pytest.raises(SettingsError, match=port.split(":", maxsplit=1)[0]):
        make_listener(reactor, "127.0.0.1", port)


UNUSABLE = "key and certificate must be PEM that OpenSSL can use: "


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with files for TLS, good ones and others."""
    folder = tmp_path_factory.mktemp("tls")
    no_use = x25519.X25519PrivateKey.generate()
    for which, key_of in (("ours", None), ("theirs", None), ("x", no_use)):
        both = make_certificate(folder, key_of).read_text()
        key, begin, certificate = both.partition("-----BEGIN CERTIFICATE-----")
        (folder / f"{which}.key").write_text(key)
        (folder / f"{which}.crt").write_text(begin + certificate)
    (folder / "text").write_text("text")
    return folder


@pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")
@pytest.mark.parametrize(
    ("key", "certificate", "mistake"),
    [
        ("theirs.key", "ours.crt", "the certificate does not belong to the key"),
        ("text", "ours.crt", UNUSABLE),
        ("ours.key", "text", UNUSABLE),
        ("x.key", "x.crt", UNUSABLE + "unknown certificate type"),
        ("none", "ours.crt", "cannot read "),
    ],
)
def test_bad_files_for_tls_are_one_clear_line(
    files: Path, key: str, certificate: str, mistake: str
) -> None:
    """Without OpenSSL's own way to put it."""
    port = f"ssl:0:privateKey={files / key}:certKey={files / certificate}"

    with pytest.raises(SettingsError) as caught:
        make_listener(reactor, "unused", port)

    message = str(caught.value)
    assert message.startswith(f"cannot listen on {port}: {mistake}")
    assert "[(" not in message


@pytest.mark.parametrize("which", ["index=0", "name=door"])
def test_a_socket_that_systemd_has_not_passed_is_one_clear_line(which: str) -> None:
    """As when the service is started without its socket unit."""
    port = f"systemd:domain=INET:{which}"

    with pytest.raises(SettingsError) as caught:
        make_listener(reactor, "unused", port)

    why = "systemd has passed no such socket; is there a socket unit, and started?"
    assert str(caught.value) == f"cannot listen on {port}: {why}"
