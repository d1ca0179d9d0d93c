"""`abproxy-health` finds the proxy where it listens, and says whether it answers."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.threads import deferToThread

from abproxy import healthcheck
from abproxy.errors import SettingsError
from abproxy.healthcheck import (
    PROXY_PROTOCOL,
    TLS,
    Address,
    address_of,
    main,
    options_of_first_process,
)
from abproxy.settings.settings import Settings
from abproxy.settings.sources import DEFAULTS, variable
from support.certificates import make_certificate
from support.processes import proxy
from support.proxy import started_proxy

# Twisted's own way to hand a certificate to its library.
pytestmark = pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")

NOBODY = "http://127.0.0.1:1"


@pytest.fixture(autouse=True)
def nothing_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the settings of this machine out, and what its first process is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(DEFAULTS, raising=False)
    for each in attrs.fields(Settings):
        monkeypatch.delenv(variable(each.metadata["option"]), raising=False)
    monkeypatch.setattr(healthcheck, "FIRST_PROCESS", tmp_path / "cmdline")
    (tmp_path / "cmdline").write_bytes(b"/sbin/init\0")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file with a key and its certificate."""
    return make_certificate(tmp_path_factory.mktemp("tls"))


# Where it asks


@pytest.mark.parametrize(
    ("settings", "address"),
    [
        ({}, Address(host="127.0.0.1", port=8081)),
        ({"ip": "0.0.0.0"}, Address(host="127.0.0.1", port=8081)),
        ({"ip": "::", "port": "90"}, Address(host="::1", port=90)),
        ({"ip": "10.0.0.7"}, Address(host="10.0.0.7", port=8081)),
        ({"operations_port": "8082"}, Address(host="127.0.0.1", port=8082)),
        ({"port": "tcp:8090"}, Address(host="127.0.0.1", port=8090)),
        ({"port": "tcp:port=8090"}, Address(host="127.0.0.1", port=8090)),
        (
            {"port": "tcp6:8090:interface=2001\\:db8\\:\\:1"},
            Address(host="2001:db8::1", port=8090),
        ),
        ({"port": "tcp6:8090"}, Address(host="::1", port=8090)),
        ({"port": "unix:/run/a\\:b.sock:mode=660"}, Address(path="/run/a:b.sock")),
        ({"port": "unix:address=/run/a"}, Address(path="/run/a")),
        (
            {"port": "ssl:443:privateKey=k.pem:interface=10.0.0.7"},
            Address(host="10.0.0.7", port=443, layers=(TLS,)),
        ),
        (
            {"port": "haproxy:tcp:8090:interface=127.0.0.1"},
            Address(host="127.0.0.1", port=8090, layers=(PROXY_PROTOCOL,)),
        ),
        (
            {"port": "haproxy:unix:/run/a"},
            Address(path="/run/a", layers=(PROXY_PROTOCOL,)),
        ),
        (
            {"port": "haproxy:ssl:443:privateKey=k.pem"},
            Address(host="127.0.0.1", port=443, layers=(TLS, PROXY_PROTOCOL)),
        ),
        (
            {"port": "443", "tls_cert": "c.pem"},
            Address(host="127.0.0.1", port=443, layers=(TLS,)),
        ),
        (
            {"port": "haproxy:tcp:443", "tls_cert": "c.pem"},
            Address(host="127.0.0.1", port=443, layers=(PROXY_PROTOCOL, TLS)),
        ),
        (
            {"port": "443", "tls_cert": "c.pem", "operations_port": "8082"},
            Address(host="127.0.0.1", port=8082),
        ),
        (
            {"port": "systemd:domain=INET:index=0", "operations_port": "8082"},
            Address(host="127.0.0.1", port=8082),
        ),
    ],
)
def test_it_asks_where_the_proxy_listens(
    settings: dict[str, str], address: Address
) -> None:
    """The operators' port if there is one: clients cannot fill that one."""
    assert address_of(Settings(**settings)) == address


@pytest.mark.parametrize("port", ["0", "systemd:domain=INET:index=0", "tcp:x", "ssl:"])
def test_it_says_so_if_settings_do_not_say_where(port: str) -> None:
    """A port that the system chooses can be told by nothing."""
    with pytest.raises(SettingsError):
        address_of(Settings(port=port))


@pytest.mark.parametrize(
    ("command_line", "options"),
    [
        ("python /opt/abproxy/bin/twistd -n abproxy --port 90 ", ["--port", "90"]),
        ("/dev/init -- twistd --nodaemon abproxy --port 90 ", ["--port", "90"]),
        ("twistd --nodaemon abproxy ", []),
        ("/sbin/init ", []),
        ("cat abproxy --port 90 ", []),
        ("", []),
    ],
)
def test_it_takes_the_options_of_the_first_process(
    command_line: str, options: list[str]
) -> None:
    """In a container that is the proxy, or an init in front of it."""
    taken = options_of_first_process(command_line.replace(" ", "\0").encode())

    assert taken == options


# What it says


def _says(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = main(arguments)
    return code, capsys.readouterr().out


LISTENING = {
    "a port": "0",
    "TCP": "tcp:0:interface=127.0.0.1",
    "a Unix socket": "unix:{folder}/socket",
    "an endpoint with TLS": "ssl:0:privateKey={certificate}:certKey={certificate}",
    "PROXY protocol": "haproxy:tcp:0:interface=127.0.0.1",
    "PROXY protocol in TLS": "haproxy:ssl:0:privateKey={certificate}:"
    "certKey={certificate}",
}
TLS_ALSO_FOR = ("a port", "a Unix socket", "PROXY protocol")


@pytest.fixture(params=[*LISTENING, *(f"{name}, TLS_CERT" for name in TLS_ALSO_FOR)])
def listening(
    request: pytest.FixtureRequest, certificate: Path, tmp_path: Path
) -> dict[str, Any]:
    """Give settings of where to listen, on any port."""
    name, comma, _ = request.param.partition(", ")
    port = LISTENING[name].format(certificate=certificate, folder=tmp_path)
    pem = str(certificate) if comma else None
    return {"port": port, "tls_cert": pem, "tls_key": pem}


@pytest.mark.parametrize("ip", ["127.0.0.1", "0.0.0.0"])
@ensureDeferred
async def test_a_proxy_that_answers_is_healthy(
    ip: str, listening: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """However it listens, and although the inference server is away."""
    pem = listening["tls_cert"]
    tls = ["--tls-cert", pem, "--tls-key", pem] if pem else []
    async with started_proxy(is_up=False, ip=ip, **listening) as here:
        found = str(getattr(here.service._port.getHost(), "port", ""))
        port = re.sub(r"(^|:)0(:|$)", rf"\g<1>{found}\g<2>", listening["port"])
        code = await deferToThread(main, ["--ip", ip, "--port", port, *tls])

    said = capsys.readouterr().out
    assert said.startswith("abproxy answers on ")
    assert said.endswith("/-/healthy: 200\n")
    assert code == 0


@ensureDeferred
async def test_it_need_not_be_trusted(capsys: pytest.CaptureFixture[str]) -> None:
    """It asks for no client, as a health check of a balancer does."""
    port = "haproxy:tcp:0:interface=127.0.0.1"
    async with started_proxy(port=port, trusted_proxies=("10.0.0.1",)) as here:
        asked = port.replace("0:", f"{here.port}:", 1)
        code = await deferToThread(main, ["--port", asked])

    assert capsys.readouterr().out.endswith("/-/healthy: 200\n")
    assert code == 0


def test_a_proxy_that_is_not_there_is_not_healthy(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One line, and exit code 1."""
    told = "abproxy does not answer on http://127.0.0.1:1: Connection refused\n"
    assert _says(capsys, "--port=1") == (1, told)


def test_a_mistake_in_the_settings_is_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The proxy would not run with it either."""
    told = "abproxy-health: --port: expected a port from 0 to 65535, not 'x'\n"
    assert _says(capsys, "--port=x") == (1, told)


@pytest.fixture
def answering(tmp_path: Path) -> Iterator[str]:
    """Run a proxy, and give its port."""
    folder = tmp_path / "proxy"
    with proxy(folder, NOBODY, "abproxy answers on") as url:
        yield url.rpartition(":")[2]


@pytest.mark.parametrize("source", [".env", "environment", "defaults", "first process"])
def test_it_reads_what_the_proxy_reads(
    answering: str,
    source: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The file, the environment, the image's defaults, and the proxy's own options."""
    if source == ".env":
        (tmp_path / ".env").write_text(f"PORT={answering}\n")
    elif source == "environment":
        monkeypatch.setenv("PORT", answering)
    elif source == "defaults":
        (tmp_path / "defaults").write_text(f"PORT={answering}\n")
        monkeypatch.setenv(DEFAULTS, str(tmp_path / "defaults"))
    else:
        words = ["twistd", "abproxy", "--port", answering]
        (tmp_path / "cmdline").write_text("\0".join(words) + "\0")

    told = f"abproxy answers on http://127.0.0.1:{answering}/-/healthy: 200\n"
    assert _says(capsys) == (0, told)
