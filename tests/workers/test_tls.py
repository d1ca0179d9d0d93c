"""Workers share a port on which clients speak TLS."""

import re
import shutil
from pathlib import Path
from signal import SIGHUP

import requests
from pytest_twisted import ensureDeferred
from twisted.internet.threads import deferToThread

from bench.breakable import Traits, row_of
from support.certificates import Files, issue
from support.client import connect, shake_hands, until
from support.processes import Daemon, daemon
from support.upstream import breakable


def embed(here: Daemon, files: Files) -> list[list[float]]:
    """Call as a client that trusts the authority."""
    url = f"https://127.0.0.1:{here.port}/embed"
    trusted = str(files.authority)
    answer = requests.post(url, json={"inputs": "a"}, verify=trusted, timeout=30)
    rows: list[list[float]] = answer.json()
    return rows


def shown(here: Daemon) -> bytes:
    """Connect, and return the certificate that is shown."""
    client = shake_hands(here.port)
    certificate = client.getpeercert(binary_form=True)
    client.close()
    assert certificate is not None
    return certificate


@ensureDeferred
async def test_workers_speak_tls_on_their_port(tmp_path: Path) -> None:
    """And the operators' form reaches them."""
    files = issue(tmp_path)
    async with (
        breakable(Traits()) as upstream,
        daemon(
            tmp_path, upstream, "--workers=2", "--operations-port=0", *files.options
        ) as here,
    ):
        await until(lambda: " with 2 workers" in here.log.read_text())
        log = here.log.read_text()
        rows = await deferToThread(embed, here, files)
        [port] = re.findall(r"Operations are on http://127.0.0.1:(\d+)", log)
        operator = await connect(int(port))
        tried = await operator.embed("b")
        operator.hang_up()

    assert rows == [row_of("a", len(rows[0]))]
    assert tried.is_for(["b"])
    assert f"abproxy answers on https://127.0.0.1:{here.port} with 2 workers" in log


@ensureDeferred
async def test_sighup_brings_a_new_certificate_to_all_workers(tmp_path: Path) -> None:
    """Each reads the files for itself."""
    (tmp_path / "new").mkdir()
    files, new = issue(tmp_path), issue(tmp_path / "new")
    async with (
        breakable(Traits()) as upstream,
        daemon(tmp_path, upstream, "--workers=2", *files.options) as here,
    ):
        before = await deferToThread(shown, here)
        shutil.copy(new.cert, files.cert)
        shutil.copy(new.key, files.key)

        here.process.send_signal(SIGHUP)
        said = "TLS_CERT and TLS_KEY have changed, and are used"
        await until(lambda: here.log.read_text().count(said) == 2)
        after = [await deferToThread(shown, here) for _ in range(10)]

    assert len(set(after)) == 1
    assert before not in after
