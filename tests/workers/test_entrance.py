"""The clients' port, held by a foreman."""

import socket
from pathlib import Path

import pytest
from certificates import endpoint, make_certificate
from pytest_twisted import ensureDeferred
from sockets import LOCALHOST, connect
from twisted.internet import reactor
from twisted.internet.error import ConnectError
from twisted.internet.task import deferLater

from abproxy.settings import SettingsError
from abproxy.workers.entrance import make_entrance


@pytest.mark.parametrize("port", ["0", "tcp:0:interface=127.0.0.1"])
@ensureDeferred
async def test_a_port_is_held_but_nobody_is_let_in(port: str) -> None:
    """Clients wait until somebody accepts them; then it is let go."""
    entrance = make_entrance(reactor, LOCALHOST, port)

    caller = await connect(entrance.port)
    entrance.close()
    await deferLater(reactor, 0.01)

    assert entrance.address == f"http://127.0.0.1:{entrance.port}"
    with pytest.raises(ConnectError):
        await connect(entrance.port)
    caller.hang_up()


def test_an_address_of_six_is_shown_as_one_types_it() -> None:
    """In brackets."""
    entrance = make_entrance(reactor, "::1", "0")

    assert entrance.address == f"http://[::1]:{entrance.port}"
    entrance.close()


def test_a_port_in_use_is_said_to_be() -> None:
    """As without workers."""
    with socket.create_server((LOCALHOST, 0)) as taken:
        port = str(taken.getsockname()[1])

        with pytest.raises(SettingsError, match="Address already in use"):
            make_entrance(reactor, LOCALHOST, port)


@pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")
@pytest.mark.parametrize("kind", ["haproxy", "ssl"])
@ensureDeferred
async def test_what_stands_between_socket_and_http_cannot_be_shared(
    kind: str, tmp_path: Path
) -> None:
    """Workers are handed the socket alone."""
    proxied = "haproxy:tcp:0:interface=127.0.0.1"
    port = proxied if kind == "haproxy" else endpoint(make_certificate(tmp_path))

    with pytest.raises(SettingsError, match="WORKERS can share a TCP port, but not"):
        make_entrance(reactor, LOCALHOST, port)
    await deferLater(reactor, 0.01)
