"""
The command `abproxy-health`: ask a running proxy whether it answers.

It takes the options of `twistd abproxy` and reads the same settings, so it asks
where the proxy listens: on OPERATIONS_PORT if there is one, else on PORT, over
TCP or a Unix socket, with TLS and the PROXY protocol where the endpoint has
them.  Without options of its own it takes those of a container's first process.
"""

import os
import re
import socket
import ssl
import sys
from collections.abc import Sequence
from contextlib import closing
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from attrs import evolve, frozen

from abproxy.errors import SettingsError
from abproxy.settings.settings import Settings
from abproxy.tap import Options, read_settings
from abproxy.web.proxy_header import FOR_ITSELF

__all__ = ["Address", "address_of", "main", "options_of_first_process"]

PATH = "/-/healthy"
"""About the proxy alone: a restart of it would not help the inference server."""

TIMEOUT_S = 4.0

FIRST_PROCESS = Path("/proc/1/cmdline")

LOOPBACK = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
"""Where a port is asked that is open on all addresses."""

TLS, PROXY_PROTOCOL = "TLS", "PROXY protocol"


@frozen(kw_only=True)
class Address:
    """Where a proxy listens."""

    host: str = ""
    port: int = 0
    path: str = ""
    """Of a Unix socket."""

    layers: tuple[str, ...] = ()
    """What comes before HTTP, in this order."""

    def __str__(self) -> str:
        if self.path:
            return self.path
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if TLS in self.layers else 'http'}://{host}:{self.port}"

    def connect(self) -> socket.socket:
        """Return a connection to it."""
        if self.path:
            ours = socket.socket(socket.AF_UNIX)
            ours.settimeout(TIMEOUT_S)
            ours.connect(self.path)
        else:
            ours = socket.create_connection((self.host, self.port), TIMEOUT_S)
        for layer in self.layers:
            if layer == PROXY_PROTOCOL:
                ours.sendall(FOR_ITSELF)
            else:
                ours = _client_context().wrap_socket(ours)
        return ours


def _client_context() -> ssl.SSLContext:
    """Return a context for this machine's own proxy, whatever its certificate says."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def address_of(settings: Settings) -> Address:
    """
    Return where the proxy is asked that has these *settings*.

    Raises:
        SettingsError: they do not say it.
    """
    if settings.operations_port:
        return _at(settings.ip, settings.operations_port)
    address = _at(settings.ip, settings.port)
    if settings.tls_cert:
        address = evolve(address, layers=(*address.layers, TLS))
    return address


def _at(ip: str, port: str) -> Address:
    if ":" not in port:
        return _tcp(ip, port)
    kind, *rest = _words_of(port)
    layers = []
    if kind == "haproxy" and rest:
        kind, *rest = rest
        layers.append(PROXY_PROTOCOL)
    if kind == "ssl":
        layers.insert(0, TLS)
    named = dict(each.split("=", 1) for each in rest if "=" in each)
    first = next((each for each in rest if "=" not in each), "")
    if kind == "unix":
        return Address(path=named.get("address", first), layers=tuple(layers))
    if kind not in {"tcp", "tcp6", "ssl"}:
        raise SettingsError(f"{port} does not say where that is; OPERATIONS_PORT may")
    host = named.get("interface", "::" if kind == "tcp6" else "")
    return _tcp(host, named.get("port", first), *layers)


def _tcp(host: str, port: str, *layers: str) -> Address:
    if not port.isdecimal() or not int(port):
        raise SettingsError(f"{port or 'nothing'} is no port that can be asked")
    return Address(host=LOOPBACK.get(host, host), port=int(port), layers=layers)


def _words_of(endpoint: str) -> list[str]:
    """Return what is between the colons of a Twisted endpoint."""
    words = re.findall(r"(?:\\.|[^:\\])+", endpoint)
    return [re.sub(r"\\(.)", r"\1", word) for word in words]


def options_of_first_process(command_line: bytes) -> list[str]:
    """Return the options of the proxy, if the first process here is one."""
    words = command_line.decode(errors="replace").removesuffix("\0").split("\0")
    runs = "abproxy" in words and any(Path(word).name == "twistd" for word in words)
    return words[words.index("abproxy") + 1 :] if runs else []


def _ask(address: Address) -> int:
    """Return the status with which the proxy answers."""
    connection = HTTPConnection("localhost")
    with closing(connection):
        connection.sock = address.connect()
        connection.request("GET", PATH, headers={"Connection": "close"})
        return connection.getresponse().status


def main(arguments: Sequence[str] | None = None) -> int:
    """Write one line about the proxy; the exit code is 0 if it answers."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = Options()
    try:
        options.parseOptions(
            given or options_of_first_process(FIRST_PROCESS.read_bytes())
        )
        address = address_of(read_settings(options, os.environ))
    except (SettingsError, OSError) as error:
        print(f"abproxy-health: {error}")  # noqa: T201
        return 1
    try:
        status = _ask(address)
    except (OSError, HTTPException) as error:
        reason = getattr(error, "strerror", None) or error
        print(f"abproxy does not answer on {address}: {reason}")  # noqa: T201
        return 1
    print(f"abproxy answers on {address}{PATH}: {status}")  # noqa: T201
    return int(status != HTTPStatus.OK)


if __name__ == "__main__":
    sys.exit(main())
