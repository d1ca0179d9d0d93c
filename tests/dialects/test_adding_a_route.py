"""What docs/adding-a-route.md says is done to a copy of abproxy, and works."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
TEXT = (ROOT / "docs" / "adding-a-route.md").read_text(encoding="utf-8")
TYPE, LINE, WORDS, TESTS = re.findall(
    r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL
)


@pytest.fixture
def changed(tmp_path: Path) -> Path:
    """Give a folder with abproxy and helpers of tests, changed as the page says."""
    for folder in ("abproxy", "bench", "tools"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    for helper in ("support", "web/openapi"):
        shutil.copytree(ROOT / "tests" / helper, tmp_path / helper)
    for test in ("test_document.py", "test_files.py"):
        shutil.copy(ROOT / "tests/web/openapi" / test, tmp_path)
    with (tmp_path / "abproxy/dialects/tei.py").open("a") as tei:
        tei.write(f"\n\n{TYPE}")
    _change(tmp_path / "abproxy/dialects/routes.py", r"^_TEI = .*\n", LINE)
    _change(
        tmp_path / "tools/openapi/document.py",
        r"^ABOUT: .*\n",
        rf"\g<0>{WORDS}",
    )
    (tmp_path / "test_embed_binary.py").write_text(TESTS)
    return tmp_path


def _change(file: Path, line: str, by: str) -> None:
    """Import the new route, and write something for the one *line*."""
    written, count = re.subn(
        line,
        f"from abproxy.dialects.tei import EMBED_BINARY\n\n{by}",
        file.read_text(),
        flags=re.MULTILINE,
    )
    assert count == 1
    file.write_text(written)


def _python(changed: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(  # noqa: S603
        [sys.executable, "-m", *arguments],
        cwd=changed,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(changed)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def _test(changed: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return _python(changed, "pytest", "-q", "-p", "no:cacheprovider", *arguments)


def test_the_page_makes_a_route_that_is_batched(changed: Path) -> None:
    """Its own tests pass, on what its own lines have made."""
    ran = _test(changed, "test_embed_binary.py")

    assert "2 passed" in ran.stdout, ran.stdout + ran.stderr


def test_the_page_makes_a_route_that_is_described(changed: Path) -> None:
    """What is asked of every description is true of the new one."""
    made = _python(changed, "tools.openapi")
    ran = _test(
        changed,
        *("test_document.py", "test_files.py"),
        *("-k", "embed_binary or valid or holds or up_to_date"),
    )

    assert made.returncode == 0, made.stderr
    assert "6 passed" in ran.stdout, ran.stdout + ran.stderr


def test_a_description_without_the_new_route_is_stale(changed: Path) -> None:
    """The test that notices says which command to run."""
    ran = _test(changed, "test_files.py")

    assert "1 failed" in ran.stdout, ran.stdout + ran.stderr
    assert "run `make openapi`" in ran.stdout


def test_the_page_names_all_batched_routes() -> None:
    """The line to change is the one that is there, and a name."""
    routes = (ROOT / "abproxy/dialects/routes.py").read_text()
    [now] = re.findall(r"^_TEI = \((.*)\)$", routes, re.MULTILINE)

    assert f"_TEI = ({now}, EMBED_BINARY)\n" == LINE
