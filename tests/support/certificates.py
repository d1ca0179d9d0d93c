"""Certificates: issued by an authority, in files, or signed by themselves."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

__all__ = ["LOCAL", "OTHER", "Files", "certificate", "issue"]

PEM = serialization.Encoding.PEM

LOCAL = x509.IPAddress(ip_address("127.0.0.1"))
OTHER = x509.DNSName("other.example")


@frozen
class Files:
    """A certificate with its chain, its key, and the authority to be trusted."""

    cert: Path
    key: Path
    authority: Path

    @property
    def settings(self) -> dict[str, Any]:
        """The settings for it."""
        return {"tls_cert": str(self.cert), "tls_key": str(self.key)}

    @property
    def options(self) -> tuple[str, str]:
        """The same on the command line."""
        return f"--tls-cert={self.cert}", f"--tls-key={self.key}"

    @property
    def serial(self) -> int:
        """The serial number of the certificate."""
        return x509.load_pem_x509_certificate(self.cert.read_bytes()).serial_number


def issue(folder: Path, password: bytes | None = None, days: int = 1) -> Files:
    """
    Issue a certificate for this machine, by way of an intermediate authority.

    Args:
        folder: where to.
        password: that of the key, if it has one.
        days: for how long the certificate is valid.
    """
    root = _Authority("root")
    between = _Authority("intermediate", root)
    key = ec.generate_private_key(ec.SECP256R1())
    names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
    names_of_it = x509.SubjectAlternativeName(names)
    own = between.sign("proxy", key.public_key(), names_of_it, days)
    files = Files(folder / "tls.crt", folder / "tls.key", folder / "ca.crt")
    files.cert.write_bytes(own + between.certificate)
    files.key.write_bytes(
        key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, _locked(password))
    )
    files.authority.write_bytes(root.certificate)
    return files


def _locked(password: bytes | None) -> serialization.KeySerializationEncryption:
    if password is None:
        return serialization.NoEncryption()
    return serialization.BestAvailableEncryption(password)


class _Authority:
    def __init__(self, name: str, issuer: "_Authority | None" = None) -> None:
        self.name, self.key = name, ec.generate_private_key(ec.SECP256R1())
        basic = x509.BasicConstraints(ca=True, path_length=None)
        self.certificate = (issuer or self).sign(name, self.key.public_key(), basic)

    def sign(
        self, name: str, key: Any, extension: x509.ExtensionType, days: int = 1
    ) -> bytes:
        """Return a certificate in PEM."""
        now = datetime.now(UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(_name(self.name))
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=2))
            .not_valid_after(now + timedelta(days=days))
            .add_extension(extension, critical=False)
            .sign(self.key, hashes.SHA256())
        )
        return made.public_bytes(PEM)


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])


def certificate(name: x509.GeneralName, days_left: int) -> tuple[bytes, bytes]:
    """Make a certificate that has signed itself; return it with its key, and alone."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a server")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=9))
        .not_valid_after(now + timedelta(days=days_left))
        .add_extension(x509.SubjectAlternativeName([name]), critical=False)
        .sign(key, hashes.SHA256())
    ).public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return secret + made, made
