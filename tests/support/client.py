"""Clients that speak plain HTTP: in memory, and over TLS."""

import json
import socket
import ssl
from datetime import UTC, datetime, timedelta
from http.client import HTTPResponse
from io import BytesIO
from pathlib import Path
from typing import Any

from attrs import define, field
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransportWithDisconnection
from twisted.python.failure import Failure


@define(eq=False)
class Answer:
    """One parsed response."""

    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        """The first value of a header line."""
        found = [value for key, value in self.headers if key.lower() == name.lower()]
        return found[0] if found else None

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)


class _Readable:
    def __init__(self, data: BytesIO) -> None:
        self.data = data

    def makefile(self, _mode: str) -> Any:
        return self.data


@define(eq=False)
class Client:
    """One connection to the door."""

    transport: StringTransportWithDisconnection
    channel: Any

    clock: Clock = field(factory=Clock)
    """The proxy's, if that is in memory as a whole."""

    def send(self, raw: bytes) -> None:
        """Send bytes as they are, in a turn of the reactor by themselves."""
        self.channel.dataReceived(raw)
        self.clock.advance(0)

    def ask(
        self, method: str, path: str, body: bytes = b"", *headers: tuple[str, str]
    ) -> None:
        """Send a request with a length."""
        lines = [f"{method} {path} HTTP/1.1", "Host: door"]
        lines += [f"{name}: {value}" for name, value in headers]
        if body or method in {"POST", "PUT"}:
            lines.append(f"Content-Length: {len(body)}")
        self.send("\r\n".join([*lines, "", ""]).encode() + body)

    def embed(
        self, body: bytes, *headers: tuple[str, str], path: str = "/embed"
    ) -> None:
        """Ask for embeddings."""
        self.ask("POST", path, body, ("Content-Type", "application/json"), *headers)

    def leave(self) -> None:
        """Hang up."""
        self.channel.connectionLost(Failure(ConnectionDone()))

    def answers(self, method: str = "POST") -> list[Answer]:
        """Parse everything that came back so far."""
        data = BytesIO(self.transport.value())
        found = []
        while data.tell() < len(data.getvalue()):
            response = HTTPResponse(_Readable(data), method=method)  # type: ignore[arg-type]
            data.close = lambda: None  # type: ignore[method-assign]
            response.begin()
            body = response.read()
            found.append(
                Answer(response.status, response.reason, response.getheaders(), body)
            )
        return found


LONG_S = 50
"""Longer than anything here takes; a client that waits longer fails its test."""


def make_certificate(folder: Path, owner: X25519PrivateKey | None = None) -> Path:
    """
    Write a key and its certificate into one file.

    Args:
        folder: where to.
        owner: the key; by default a new one, which has signed its certificate.
    """
    signer = ec.generate_private_key(ec.SECP256R1())
    key = owner or signer
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "door")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(signer, hashes.SHA256())
    )
    file = folder / "door.pem"
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return file


def endpoint(certificate: Path) -> str:
    """Write how to listen with a *certificate* on any free port."""
    return f"ssl:0:privateKey={certificate}:certKey={certificate}:interface=127.0.0.1"


def shake_hands(port: int, offered: list[str] | None = None) -> ssl.SSLSocket:
    """
    Open a connection with TLS, of the standard library, which blocks.

    Args:
        port: where to.
        offered: what it offers to speak (ALPN); None to say nothing of it.
    """
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if offered is not None:
        context.set_alpn_protocols(offered)
    with socket.create_connection(("127.0.0.1", port), LONG_S) as plain:
        # An end that the other side does not announce is an error.
        return context.wrap_socket(plain, suppress_ragged_eofs=False)


def ask(line: socket.socket, request: bytes, end: bytes) -> bytes:
    """Send a *request*, and read until what came ends with *end*."""
    line.sendall(request)
    received = b""
    while not received.endswith(end):
        piece = line.recv(1 << 16)
        assert piece, received
        received += piece
    return received


def read_all(line: socket.socket) -> bytes:
    """Read until the other side says that this was all."""
    received = b""
    while piece := line.recv(1 << 16):
        received += piece
    return received
