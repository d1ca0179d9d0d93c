"""OpenSSL is imported by a proxy that speaks TLS, and by no other."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import requests
from pytest_twisted import ensureDeferred
from twisted.internet.threads import deferToThread

from abproxy.http.openssl import is_instance
from bench.breakable import Traits, row_of
from support.certificates import Files, issue
from support.processes import Daemon, daemon
from support.upstream import breakable


def embed(url: str, trusted: Path | None = None) -> list[list[float]]:
    """Make a call."""
    verify = str(trusted) if trusted else None
    answer = requests.post(
        f"{url}/embed", json={"inputs": "a"}, verify=verify, timeout=30
    )
    rows: list[list[float]] = answer.json()
    return rows


def has_openssl(pid: int) -> bool:
    """Return whether a process has loaded the library below OpenSSL's module."""
    return "/cryptography/" in Path(f"/proc/{pid}/maps").read_text()


def children(here: Daemon) -> list[int]:
    """Return the workers of a supervisor."""
    pid = here.process.pid
    return [*map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]


def with_certificate(files: Files) -> tuple[str, ...]:
    """Have TLS by TLS_CERT."""
    return files.options


def with_endpoint(files: Files) -> tuple[str, ...]:
    """Have TLS by an endpoint of Twisted."""
    chain = files.cert.with_name("chain")
    key, *others = files.cert.read_text().partition("-----END CERTIFICATE-----\n")
    cert = files.cert.with_name("own")
    cert.write_text(key + others[0])
    chain.write_text(others[1])
    how = f"privateKey={files.key}:certKey={cert}:extraCertChain={chain}"
    return (f"--port=ssl:0:{how}:interface=127.0.0.1",)


@ensureDeferred
async def test_without_tls_it_is_not_imported(tmp_path: Path) -> None:
    """Neither at the start, nor for a call, nor for a page that is relayed."""
    async with breakable(Traits()) as upstream, daemon(tmp_path, upstream) as here:
        url = f"http://127.0.0.1:{here.port}"
        rows = await deferToThread(embed, url)
        page = await deferToThread(requests.get, f"{url}/info", timeout=30)
        found = has_openssl(here.process.pid)

    assert rows == [row_of("a", len(rows[0]))]
    assert page.ok
    assert not found


@ensureDeferred
async def test_workers_without_tls_do_not_import_it(tmp_path: Path) -> None:
    """Nor does their supervisor."""
    async with (
        breakable(Traits()) as upstream,
        daemon(tmp_path, upstream, "--workers=2") as here,
    ):
        rows = await deferToThread(embed, f"http://127.0.0.1:{here.port}")
        workers = children(here)
        found = [*map(has_openssl, [here.process.pid, *workers])]

    assert rows == [row_of("a", len(rows[0]))]
    assert len(workers) == 2
    assert found == [False] * 3


@pytest.mark.parametrize("listening", [with_certificate, with_endpoint])
@ensureDeferred
async def test_tls_is_spoken_with_clients_and_with_the_upstream(
    tmp_path: Path, listening: Callable[[Files], tuple[str, ...]]
) -> None:
    """By one proxy to the other, each of which begins without."""
    files = issue(tmp_path)
    folders = tmp_path / "behind", tmp_path / "in-front"
    for each in folders:
        each.mkdir()
    async with (
        breakable(Traits()) as upstream,
        daemon(folders[0], upstream, *listening(files)) as behind,
        daemon(
            folders[1],
            upstream,
            f"--inference-service-url=https://127.0.0.1:{behind.port}",
            f"--upstream-tls-ca={files.authority}",
        ) as here,
    ):
        rows = await deferToThread(embed, f"http://127.0.0.1:{here.port}")
        found = [has_openssl(each.process.pid) for each in (behind, here)]
        said = [each.log.read_text() for each in (behind, here)]

    assert rows == [row_of("a", len(rows[0]))]
    assert found == [True, True]
    assert f"abproxy answers on https://127.0.0.1:{behind.port}" in said[0]
    assert f"inference server: https://127.0.0.1:{behind.port}" in said[1]


def test_nothing_is_of_a_class_that_was_not_imported() -> None:
    """And the module is not imported for the question."""
    assert not is_instance(object(), "ensurepip", "object")
    assert "ensurepip" not in sys.modules


def test_what_is_of_an_imported_class_is_known() -> None:
    """As with `isinstance`."""
    assert is_instance(Path(), "pathlib", "PurePath")
    assert not is_instance("", "pathlib", "PurePath")
