"""Certificates: issued by an authority, in files, or signed by themselves."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

__all__ = ["LOCAL", "OTHER", "Files", "certificate", "issue", "make_certificate"]

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
    names = [x509.DNSName("localhost"), LOCAL]
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
            .not_valid_before(now - timedelta(days=9))
            .not_valid_after(now + timedelta(days=days))
            .add_extension(extension, critical=False)
            .sign(self.key, hashes.SHA256())
        )
        return made.public_bytes(PEM)


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])


def certificate(name: x509.GeneralName, days_left: int) -> tuple[bytes, bytes]:
    """Make a certificate that has signed itself; return it with its key, and alone."""
    signer = _Authority("a server")
    names = x509.SubjectAlternativeName([name])
    made = signer.sign("a server", signer.key.public_key(), names, days_left)
    return _unlocked(signer.key) + made, made


def make_certificate(folder: Path, owner: X25519PrivateKey | None = None) -> Path:
    """
    Write a key and its certificate into one file.

    Args:
        folder: where to.
        owner: the key; by default a new one, which has signed its certificate.
    """
    signer = _Authority("proxy")
    key = owner or signer.key
    names = x509.SubjectAlternativeName([LOCAL])
    file = folder / "proxy.pem"
    file.write_bytes(_unlocked(key) + signer.sign("proxy", key.public_key(), names))
    return file


def _unlocked(key: Any) -> bytes:
    locked = serialization.NoEncryption()
    written: bytes = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, locked)
    return written
