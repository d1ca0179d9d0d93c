"""Certificates and keys in PEM files, and in words why they cannot be used."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL
from twisted.internet.ssl import CertificateOptions
from twisted.logger import Logger

from abproxy.errors import SettingsError

__all__ = ["check", "parse_certificates", "parse_identity", "read_file"]

_log = Logger()


def read_file(name: str, file: Path) -> bytes:
    """
    Return what is in the *file* that the setting *name* names.

    Raises:
        SettingsError: it cannot be read.
    """
    try:
        return file.read_bytes()
    except OSError as error:
        reason = error.strerror or error
        raise SettingsError(f"cannot read {name}, {file}: {reason}") from error


def parse_certificates(name: str, pem: bytes) -> list[x509.Certificate]:
    """
    Return the certificates in *pem*, of the setting *name*.

    Raises:
        SettingsError: there is none.
    """
    found: list[x509.Certificate] = _parse(
        name, "certificate", x509.load_pem_x509_certificates, pem
    )
    return found


def parse_identity(
    names: tuple[str, str], certificates: bytes, key: bytes
) -> dict[str, Any]:
    """
    Return who one is, as arguments for Twisted's `CertificateOptions`.

    Args:
        names: of the settings of certificates and key.
        certificates: the own one in PEM, and behind it those that lead to a known one.
        key: that of the first, in PEM.

    Raises:
        SettingsError: they cannot be used.
    """
    of_cert, of_key = names
    own, *others = parse_certificates(of_cert, certificates)
    owner = _parse(of_key, "key", lambda pem: load_pem_private_key(pem, None), key)
    if owner.public_key() != own.public_key():
        raise SettingsError(
            f"{of_key} is not the key of the first certificate in {of_cert}"
        )
    if own.not_valid_after_utc < datetime.now(UTC):
        _log.warn(
            "The certificate in {name} has expired, on {day}",
            name=of_cert,
            day=own.not_valid_after_utc.date(),
        )
    return {"privateKey": owner, "certificate": own, "extraCertChain": others}


def check(names: tuple[str, str], options: CertificateOptions) -> None:
    """
    Raise if OpenSSL cannot use what is in *options*.

    Else it would look closer at them only when they are needed.

    Raises:
        SettingsError: it cannot.
    """
    try:
        options.getContext()
    except SSL.Error as error:
        reasons = ", ".join(str(each[-1]) for each in error.args[0])
        message = f"OpenSSL cannot use {' and '.join(names)}: {reasons}"
        raise SettingsError(message) from error


def _parse(name: str, what: str, parse: Callable[[bytes], Any], pem: bytes) -> Any:
    if b"-----BEGIN " not in pem:
        raise SettingsError(f"{name} is no PEM file: no line in it begins a {what}")
    try:
        return parse(pem)
    except TypeError as error:
        message = f"{name} is encrypted; abproxy has no password for it"
        raise SettingsError(message) from error
    except Exception as error:
        message = f"{name} has no {what} that can be used: {error}"
        raise SettingsError(message) from error
