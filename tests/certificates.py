"""A certificate that nobody has to trust, and clients that do not ask."""

import socket
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

__all__ = ["ask", "endpoint", "make_certificate", "read_all", "shake_hands"]

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
