"""TLS_CERT and TLS_KEY: who is served, and how a new certificate comes into use."""

import shutil
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import urlopen

import httpx
import pytest
import requests
from cryptography import x509
from pytest_twisted import ensureDeferred
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.logger import LogEvent, capturedLogs, formatEvent

from abproxy.errors import SettingsError
from abproxy.settings.settings import settings_from
from abproxy.web.tls import LOOK_EVERY_S, Certificate
from support.certificates import Files, issue
from support.client import ask, shake_hands
from support.processes import refusal
from support.proxy import started_proxy

PAGE = b"GET /-/healthy HTTP/1.1\r\nHost: proxy\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Return the files of a certificate."""
    return issue(tmp_path)


@pytest.fixture
def other(tmp_path: Path) -> Files:
    """Return those of another one."""
    (tmp_path / "other").mkdir()
    return issue(tmp_path / "other")


@pytest.fixture
def logged() -> Iterator[list[LogEvent]]:
    """Give what is logged."""
    with capturedLogs() as events:
        yield events


def said(logged: list[LogEvent]) -> list[str]:
    """Return it as the log shows it."""
    return [formatEvent(event) for event in logged]


def served(port: int) -> int:
    """Connect, and return the serial number of the certificate that is shown."""
    client = shake_hands(port, ["http/1.1"])
    shown = client.getpeercert(binary_form=True)
    client.close()
    assert shown is not None
    return x509.load_der_x509_certificate(shown).serial_number


# Clients


def by_ssl(url: str, files: Files) -> int:
    """Ask with Python's own library, which offers no protocol in the handshake."""
    context = ssl.create_default_context(cafile=files.authority)
    with urlopen(url, context=context, timeout=30) as answer:  # noqa: S310
        return int(answer.status)


def by_httpx(url: str, files: Files) -> int:
    """Ask with httpx, as the client of OpenAI does."""
    context = ssl.create_default_context(cafile=files.authority)
    return httpx.get(url, verify=context).status_code


def by_requests(url: str, files: Files) -> int:
    """Ask with requests."""
    return requests.get(url, verify=str(files.authority), timeout=30).status_code


def by_curl(url: str, files: Files) -> int:
    """Ask with curl, which offers HTTP/2 as well."""
    return _run("curl", "--silent", "--fail", "--cacert", files.authority, url)


def by_curl_without_alpn(url: str, files: Files) -> int:
    """Ask with a client that offers nothing."""
    return _run(
        "curl", "--no-alpn", "--silent", "--fail", "--cacert", files.authority, url
    )


def by_node(url: str, files: Files) -> int:
    """Ask with what Node has for it."""
    script = (
        f"fetch({url!r}).then(a => process.exit(a.status == 200 ? 0 : 1), "
        "e => { console.error(e); process.exit(2) })"
    )
    return _run("node", "-e", script, NODE_EXTRA_CA_CERTS=str(files.authority))


def _run(program: str, *arguments: object, **environment: str) -> int:
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"no {program} here")
    ended = subprocess.run(  # noqa: S603
        [path, *map(str, arguments)],
        env=environment,
        capture_output=True,
        check=False,
        timeout=50,
    )
    assert ended.returncode == 0, ended.stderr
    return 200


@pytest.mark.parametrize(
    "client",
    [by_ssl, by_httpx, by_requests, by_curl, by_curl_without_alpn, by_node],
)
@ensureDeferred
async def test_clients_that_trust_the_authority_are_served(
    files: Files, client: Callable[[str, Files], int]
) -> None:
    """They get the whole chain, and the name is right."""
    async with started_proxy(**files.settings) as here:
        url = f"https://127.0.0.1:{here.port}/-/healthy"
        status = await deferToThread(client, url, files)

    assert status == 200


@ensureDeferred
async def test_the_log_says_that_clients_speak_tls(
    files: Files, logged: list[LogEvent]
) -> None:
    """The address is the one to type."""
    async with started_proxy(**files.settings) as here:
        address = f"https://127.0.0.1:{here.port}"

    assert address in [event.get("address") for event in logged]


@ensureDeferred
async def test_the_port_for_operators_has_none_of_it(files: Files) -> None:
    """It has its own endpoint, and is asked from near by."""
    async with started_proxy(operations_port="0", **files.settings) as here:
        url = f"http://127.0.0.1:{here.operations_port}/-/healthy"
        answer = await deferToThread(requests.get, url, timeout=30)

    assert answer.status_code == 200


@ensureDeferred
async def test_an_endpoint_may_have_the_certificate_as_well(files: Files) -> None:
    """As one of systemd's, or one that expects the PROXY protocol."""
    port = "tcp:0:interface=127.0.0.1"
    async with started_proxy(port=port, **files.settings) as here:
        serial = await deferToThread(served, here.port)

    assert serial == files.serial


# A new certificate


@ensureDeferred
async def test_a_new_certificate_is_for_new_connections(
    files: Files, other: Files, logged: list[LogEvent]
) -> None:
    """Those that are open go on with the former one."""
    async with started_proxy(**files.settings) as here:
        client = await deferToThread(shake_hands, here.port)
        for name in ("cert", "key"):
            getattr(other, name).replace(getattr(files, name))

        here.service._reload()
        serial = await deferToThread(served, here.port)
        answer = await deferToThread(ask, client, PAGE, b"}")
        client.close()

    assert serial == files.serial
    assert answer.startswith(OK)
    assert "TLS_CERT and TLS_KEY have changed, and are used" in said(logged)


def watched(files: Files) -> tuple[Certificate, Clock]:
    """Watch these files."""
    clock = Clock()
    certificate = Certificate(files.cert, files.key, clock)
    certificate.watch()
    return certificate, clock


def test_the_files_are_looked_at_from_time_to_time(
    files: Files, other: Files, logged: list[LogEvent]
) -> None:
    """No signal is needed, and none comes too early."""
    _, clock = watched(files)
    shutil.copy(other.cert, files.cert)
    shutil.copy(other.key, files.key)

    clock.advance(LOOK_EVERY_S - 1)
    early = said(logged)
    clock.advance(1)

    assert early == []
    assert said(logged) == ["TLS_CERT and TLS_KEY have changed, and are used"]


def test_files_that_stay_are_not_used_again(
    files: Files, logged: list[LogEvent]
) -> None:
    """And the log is quiet."""
    _, clock = watched(files)

    clock.pump([LOOK_EVERY_S] * 3)

    assert said(logged) == []


def test_nothing_is_looked_at_after_the_end(files: Files) -> None:
    """No timer is left behind."""
    certificate, clock = watched(files)

    certificate.stop()

    assert clock.getDelayedCalls() == []


def test_a_folder_that_is_swapped_under_the_files_is_noticed(
    tmp_path: Path, files: Files, other: Files, logged: list[LogEvent]
) -> None:
    """Kubernetes replaces one link, behind which both files are."""
    data = tmp_path / "..data"
    data.symlink_to(files.cert.parent)
    _, clock = watched(Files(data / "tls.crt", data / "tls.key", files.authority))
    new = tmp_path / "..data_tmp"
    new.symlink_to(other.cert.parent)
    new.replace(data)

    clock.advance(LOOK_EVERY_S)

    assert said(logged) == ["TLS_CERT and TLS_KEY have changed, and are used"]


def test_a_certificate_whose_key_is_still_the_former_waits_for_it(
    files: Files, other: Files, logged: list[LogEvent]
) -> None:
    """Two files are not written in one moment: one line says so, however long."""
    _, clock = watched(files)
    shutil.copy(other.cert, files.cert)
    clock.pump([LOOK_EVERY_S] * 3)
    meanwhile = said(logged)

    shutil.copy(other.key, files.key)
    clock.advance(LOOK_EVERY_S)

    why = "TLS_KEY is not the key of the first certificate in TLS_CERT"
    assert meanwhile == [f"The former certificate stays: {why}"]
    assert said(logged)[1:] == ["TLS_CERT and TLS_KEY have changed, and are used"]


@ensureDeferred
async def test_files_that_are_gone_change_nothing(
    files: Files, logged: list[LogEvent]
) -> None:
    """Clients are served as before, and one line says what is missing."""
    serial = files.serial
    async with started_proxy(**files.settings) as here:
        files.cert.unlink()

        here.service._reload()
        here.service._reload()
        shown = await deferToThread(served, here.port)

    assert shown == serial
    why = f"cannot read TLS_CERT, {files.cert}: No such file or directory"
    lines = [line for line in said(logged) if "former certificate" in line]
    assert lines == [f"The former certificate stays: {why}"]


# Mistakes


def _empty(files: Files) -> None:
    files.cert.write_text("")


def _key_as_certificate(files: Files) -> None:
    shutil.copy(files.key, files.cert)


def _certificate_as_key(files: Files) -> None:
    shutil.copy(files.cert, files.key)


def _der(files: Files) -> None:
    files.key.write_bytes(b"\x30\x82")


def _locked(files: Files) -> None:
    issue(files.cert.parent, password=b"sesame")


def _cut_off(files: Files) -> None:
    files.cert.write_text(files.cert.read_text()[:300])


def _swapped(files: Files) -> None:
    other = files.cert.parent / "x"
    other.mkdir()
    shutil.copy(issue(other).key, files.key)


def _folder(files: Files) -> None:
    files.key.unlink()
    files.key.mkdir()


MISTAKES = [
    (_empty, "TLS_CERT is no PEM file: no line in it begins a certificate"),
    (_key_as_certificate, "TLS_CERT has no certificate that can be used: "),
    (_certificate_as_key, "TLS_KEY has no key that can be used: "),
    (_cut_off, "TLS_CERT has no certificate that can be used: "),
    (_der, "TLS_KEY is no PEM file: no line in it begins a key"),
    (_locked, "TLS_KEY is encrypted; abproxy has no password for it"),
    (_swapped, "TLS_KEY is not the key of the first certificate in TLS_CERT"),
    (_folder, "cannot read TLS_KEY, "),
]


@pytest.mark.parametrize(("spoil", "why"), MISTAKES)
def test_a_mistake_with_the_files_is_said_in_one_line(
    files: Files, spoil: Callable[[Files], None], why: str
) -> None:
    """With the name of the setting to look at."""
    spoil(files)

    with pytest.raises(SettingsError) as error:
        Certificate(files.cert, files.key, Clock())

    assert str(error.value).startswith(why)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_real_process_ends_with_that_line(
    tmp_path: Path, files: Files, workers: str
) -> None:
    """And with exit code 1, before it is a daemon."""
    _swapped(files)

    ended = refusal(tmp_path, "--port=0", f"--workers={workers}", *files.options)

    why = "TLS_KEY is not the key of the first certificate in TLS_CERT"
    assert ended == (1, f"abproxy: {why}\n")


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"tls-cert": "a"}, "TLS_CERT is set, but TLS_KEY is not"),
        ({"tls-key": "a"}, "TLS_KEY is set, but TLS_CERT is not"),
        (
            {"tls-cert": "a", "tls-key": "b", "port": "ssl:8443:privateKey=c"},
            "TLS_CERT is for a PORT without ssl:, which has its own",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_refused(
    settings: dict[str, str], why: str
) -> None:
    """Rather than served without TLS, or with another certificate."""
    with pytest.raises(SettingsError, match=why):
        settings_from(settings, {}, {})


def test_an_expired_certificate_is_worth_a_line(
    tmp_path: Path, logged: list[LogEvent]
) -> None:
    """Most clients refuse it, but not all of them look."""
    files = issue(tmp_path, days=-1)

    Certificate(files.cert, files.key, Clock())

    [line] = said(logged)
    assert line.startswith("The certificate in TLS_CERT has expired, on 20")
