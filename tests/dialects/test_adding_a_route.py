"""What docs/adding-a-route.md says is done to a copy of abproxy, and works."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
TEXT = (ROOT / "docs" / "adding-a-route.md").read_text(encoding="utf-8")
TYPE, LINE, TESTS = re.findall(
    r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL
)


@pytest.fixture
def changed(tmp_path: Path) -> Path:
    """Give a folder with abproxy and its doubles, changed as the page says."""
    shutil.copytree(ROOT / "abproxy", tmp_path / "abproxy")
    shutil.copy(ROOT / "tests" / "webdoubles.py", tmp_path)
    with (tmp_path / "abproxy/dialects/tei.py").open("a") as tei:
        tei.write(f"\n\n{TYPE}")
    routes = tmp_path / "abproxy/dialects/routes.py"
    written, count = re.subn(
        r"^_TEI = .*\n",
        f"from abproxy.dialects.tei import EMBED_BINARY\n\n{LINE}",
        routes.read_text(),
        flags=re.MULTILINE,
    )
    assert count == 1
    routes.write_text(written)
    (tmp_path / "test_embed_binary.py").write_text(TESTS)
    return tmp_path


def test_the_page_makes_a_route_that_is_batched(changed: Path) -> None:
    """Its own tests pass, on what its own lines have made."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]

    ran = subprocess.run(  # noqa: S603
        command,
        cwd=changed,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(changed)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )

    assert "2 passed" in ran.stdout, ran.stdout + ran.stderr


def test_the_page_names_all_batched_routes() -> None:
    """The line to change is the one that is there, and a name."""
    routes = (ROOT / "abproxy/dialects/routes.py").read_text()
    [now] = re.findall(r"^_TEI = \((.*)\)$", routes, re.MULTILINE)

    assert f"_TEI = ({now}, EMBED_BINARY)\n" == LINE
