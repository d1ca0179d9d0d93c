"""The files around the package hold what they promise."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest
from ruamel.yaml import YAML

from abproxy.process import KILL_S
from abproxy.settings.settings import Settings, settings_from
from abproxy.settings.sources import DEFAULTS, read_env_file, variable
from abproxy_model.files import MINILM, STATIC

ROOT = Path(__file__).parent.parent.parent
DOCKERFILE = ROOT / "Dockerfile"
README = ROOT / "README.md"
BIN = Path(sys.executable).parent


def _run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603
        command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )


@pytest.fixture
def services() -> Any:
    """Read the services of `compose.yaml`."""
    text = (ROOT / "compose.yaml").read_text(encoding="utf-8")
    return YAML(typ="safe").load(text)["services"]


def _seconds(duration: str) -> float:
    return float(duration.removesuffix("s"))


def test_compose_file_is_valid() -> None:
    """It follows the schema of the Compose specification."""
    checked = _run(
        BIN / "check-jsonschema",
        "--builtin-schema",
        "vendor.compose-spec",
        "compose.yaml",
    )

    assert checked.returncode == 0, checked.stdout


def test_the_proxy_waits_for_the_inference_server(services: Any) -> None:
    """It is started when the other is healthy, and the other says when it is."""
    assert services["abproxy"]["depends_on"] == {
        "inference": {"condition": "service_healthy"}
    }
    assert services["inference"]["healthcheck"]["test"]


def test_containers_may_drain(services: Any) -> None:
    """Docker kills later than the proxy gives up by itself."""
    drain_s = Settings().drain_timeout_s

    assert _seconds(services["abproxy"]["stop_grace_period"]) > drain_s
    assert _seconds(services["embedded"]["stop_grace_period"]) > drain_s + KILL_S


@pytest.mark.skipif(
    not (BIN / "hadolint").exists(), reason="no hadolint for this kind of machine"
)
def test_dockerfile_is_clean() -> None:
    """The linter has nothing to say."""
    linted = _run(BIN / "hadolint", "Dockerfile")

    assert linted.returncode == 0, linted.stdout


@pytest.mark.parametrize(
    "line",
    [
        "ARG BASE=python:3.13-slim",
        "USER 10001:10001",
        "EXPOSE 8081",
        'ENTRYPOINT ["twistd", "--nodaemon", "--pidfile=", "abproxy"]',
    ],
)
def test_dockerfile_keeps_the_essentials(line: str) -> None:
    """Not root, in the foreground, no shell between Docker and twistd."""
    assert line in DOCKERFILE.read_text(encoding="utf-8").splitlines()


def _steps(kind: str) -> list[str]:
    """Find the steps of a kind in the Dockerfile, each in one line."""
    lines = DOCKERFILE.read_text(encoding="utf-8").replace("\\\n", "").splitlines()
    return [line for line in lines if line.startswith(kind)]


def test_the_plugins_are_listed_after_each_installation() -> None:
    """A list older than a plugin is no good, and no user may write another."""
    installing = [
        line
        for line in _steps("RUN")
        if re.search(
            r"pip install( --no-deps --target \S+)? ('\.\[redis,tracing\]'|\.) ", line
        )
    ]

    assert len(installing) == 2
    assert all("getPlugins" in line.rpartition("&&")[2] for line in installing)


def test_what_abproxy_needs_is_installed_before_its_source_is_there() -> None:
    """A change of the source installs nothing again but abproxy itself."""
    text = DOCKERFILE.read_text(encoding="utf-8")
    source = text.index("\nCOPY . .\n")

    assert text.index("pip install '.[redis,tracing]'") < source
    assert text.index("pip install '.[model]'") < source
    assert text.rindex("pip install ") > source
    assert "--no-deps" in text[text.rindex("pip install ") :]


def test_the_list_of_packages_is_of_what_the_image_has() -> None:
    """`make sbom` installs with the same extras as the image of the proxy."""
    [in_image, *_] = re.findall(r"pip install '(\.\[\S+\])'", " ".join(_steps("RUN")))
    listed = _run("make", "-n", "-W", "setup.py", "sbom").stdout

    assert "sbom/abproxy/bin/python install" in listed
    assert f"'{in_image}'" in listed


def test_the_image_has_the_version_of_the_package() -> None:
    """In its label; `make image` says it as well."""
    [version] = re.findall(r'version="(.*)"', (ROOT / "setup.py").read_text())

    assert f"ARG VERSION={version}" in _steps("ARG")
    planned = _run("make", "-n", "image").stdout
    assert f"VERSION={version} " in planned
    assert "--label org.opencontainers.image.revision=" in planned


def test_no_setting_is_in_the_environment_of_the_image() -> None:
    """There it would win over the `.env` file of the user."""
    known = {variable(each.metadata["option"]) for each in attrs.fields(Settings)}
    set_in_image = re.findall(r"(\w+)=", " ".join(_steps("ENV")))

    assert DEFAULTS in set_in_image
    assert known.isdisjoint(set_in_image)


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
@pytest.mark.parametrize(
    ("there", "target", "command"),
    [
        (["docker", "podman"], "image", "docker build "),
        (["podman"], "image", "podman build "),
        (["docker", "podman-compose"], "compose/up", "docker compose up --build"),
        (["podman-compose"], "compose/up", "podman-compose up --build"),
        ([], "compose/up", "docker compose up --build"),
    ],
)
def test_make_takes_the_programs_for_containers_that_are_there(
    tmp_path: Path, there: list[str], target: str, command: str
) -> None:
    """Docker's, or Podman's."""
    for name in there:
        (tmp_path / name).touch(mode=0o755)
    (tmp_path / ".env").touch()
    planned = subprocess.run(  # noqa: S603
        [str(shutil.which("make")), "-f", ROOT / "Makefile", "-n", target],
        cwd=tmp_path,
        env={"PATH": f"{tmp_path}"},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )

    assert command in planned.stdout


@pytest.mark.parametrize("file", ["Makefile", "Dockerfile"])
@pytest.mark.parametrize("package", [MINILM, STATIC], ids=["minilm", "static"])
def test_the_models_are_the_ones_the_code_knows(file: str, package: Any) -> None:
    """Other weights would give other vectors."""
    assert package.requirement in (ROOT / file).read_text(encoding="utf-8")


@pytest.mark.parametrize("file", ["Makefile", "Dockerfile"])
def test_the_models_can_be_had_on_any_machine(file: str) -> None:
    """One has no wheel for ARM under Linux, nor for the newest Python."""
    text = (ROOT / file).read_text(encoding="utf-8")

    assert "--platform manylinux2014_x86_64 --python-version 3.13" in text


def test_ci_runs_what_the_readme_tells() -> None:
    """One command for everybody."""
    assert "\nmake check test\n" in README.read_text(encoding="utf-8")
    assert "make check test" in (ROOT / ".ci/run").read_text(encoding="utf-8")


@pytest.mark.parametrize("readme", [README, ROOT / "deploy/README.md"])
def test_links_in_a_readme_lead_somewhere(readme: Path) -> None:
    """Those to files of ours."""
    text = readme.read_text(encoding="utf-8")

    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    assert [each for each in targets if not (readme.parent / each).exists()] == []


@pytest.mark.parametrize("scheme", ["light", "dark", "narrow"])
def test_pictures_of_the_live_page_are_small(scheme: str) -> None:
    """`make screenshots` makes them, and nobody waits for them."""
    picture = (ROOT / f"docs/images/live-{scheme}.png").read_bytes()

    assert picture.startswith(b"\x89PNG")
    assert len(picture) < 200_000


def test_each_dependency_has_its_reason() -> None:
    """`docs/dependencies.md` has a line for everything `setup.py` asks for."""
    explained = (ROOT / "docs/dependencies.md").read_text(encoding="utf-8")
    wanted = re.findall(
        r'^    "([A-Za-z][\w-]*)[>=]', (ROOT / "setup.py").read_text(), re.MULTILINE
    )

    assert wanted
    assert [each for each in wanted if f"**{each}**" not in explained] == []


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
def test_make_alone_lists_what_there_is() -> None:
    """The first thing one does with a Makefile."""
    listed = _run("make")

    assert "make run " in listed.stdout
    assert "make test " in listed.stdout


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
def test_make_embed_says_what_is_wrong_with_its_inputs() -> None:
    """A list that is none is told from a text by how it begins."""
    refused = _run("make", "embed", "inputs=[text")

    told = "inputs begin like a JSON list, but are none: Expecting value"
    assert refused.stderr.startswith(told)
    assert "Traceback" not in refused.stderr
    assert refused.returncode == 2


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
@pytest.mark.parametrize(
    "content",
    [
        "",
        "PORT=9001",
        "export PORT = '9001'",
        'PORT="9001" # mine',
        "# PORT=1\nPORT=2\nPORT=9001 # mine\nSLOTS=3",
        "PORT=",
        (ROOT / ".env.example").read_text(encoding="utf-8"),
    ],
)
def test_make_finds_the_proxy_where_it_listens(tmp_path: Path, content: str) -> None:
    """It reads `.env` as the proxy does."""
    file = tmp_path / ".env"
    file.write_text(content, encoding="utf-8")

    planned = subprocess.run(  # noqa: S603
        ["make", "-f", ROOT / "Makefile", "-n", "load"],  # noqa: S607
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )

    port = settings_from({}, {}, read_env_file(str(file))).port
    assert planned.stdout.endswith(f" http://127.0.0.1:{port}/embed\n")
