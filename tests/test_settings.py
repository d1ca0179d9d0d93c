"""Where settings come from, and what is said about those that cannot be used."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from twisted.logger import capturedLogs, formatEvent

from abproxy.errors import SettingsError
from abproxy.settings.settings import FAST_PATHS, Settings, settings_from
from abproxy.settings.sources import read_env_file

ENVIRON = {"MAX_BATCH_SIZE": "2"}
ENV_FILE = {"MAX_BATCH_SIZE": "3"}


def settings(
    options: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    env_file: Mapping[str, str] | None = None,
) -> Settings:
    """Read settings; a source that is not named is empty."""
    return settings_from(options or {}, environ or {}, env_file or {})


def write(folder: Path, content: bytes) -> str:
    """Write a file with settings."""
    file = folder / "settings"
    file.write_bytes(content)
    return str(file)


def test_nothing_given_means_the_defaults() -> None:
    """The proxy starts without any settings."""
    assert settings() == Settings()


def test_the_command_line_wins_over_everything() -> None:
    """An option beats a variable of the environment and the file."""
    assert settings({"max-batch-size": "1"}, ENVIRON, ENV_FILE).max_batch_calls == 1


def test_the_environment_wins_over_the_file() -> None:
    """A variable of the environment beats the file."""
    assert settings({}, ENVIRON, ENV_FILE).max_batch_calls == 2


def test_the_file_wins_over_the_default() -> None:
    """What is in the file is used if nobody else says anything."""
    assert settings({}, {}, ENV_FILE).max_batch_calls == 3


def test_an_option_that_is_not_given_says_nothing() -> None:
    """Twisted hands over None for it."""
    assert settings({"max-batch-size": None}, ENVIRON).max_batch_calls == 2


def test_an_empty_value_counts_as_none() -> None:
    """`NAME=` in the environment leaves the word to the file."""
    assert settings({}, {"MAX_BATCH_SIZE": ""}, ENV_FILE).max_batch_calls == 3


def test_no_wait_and_batches_of_one_are_legal() -> None:
    """`MAX_WAIT_TIME=0 MAX_BATCH_SIZE=1` makes a proxy that does not batch."""
    read = settings({}, {"MAX_WAIT_TIME": "0", "MAX_BATCH_SIZE": "1"})

    assert (read.max_wait_ms, read.max_batch_calls) == (0, 1)


def test_a_flag_on_the_command_line_is_true() -> None:
    """Twisted hands over 1 for a flag that is given."""
    assert settings({"embedded": 1}).embedded


def test_a_flag_that_is_not_given_leaves_the_word_to_the_environment() -> None:
    """Twisted hands over 0 for it."""
    assert settings({"embedded": 0}, {"EMBEDDED": "yes"}).embedded


def test_the_key_is_not_shown() -> None:
    """A log or a traceback with the settings in it does not give the key away."""
    assert "secret" not in repr(settings({}, {"INFERENCE_SERVICE_KEY": "secret"}))


@pytest.mark.parametrize(
    ("sources", "where"),
    [
        (({"slots": "x"}, {}, {}), "--slots: "),
        (({}, {"SLOTS": "x"}, {}), "SLOTS in the environment: "),
        (({}, {}, {"SLOTS": "x"}), "SLOTS in the .env file: "),
    ],
)
def test_an_error_says_where_the_value_stands(
    sources: tuple[dict[str, str], ...], where: str
) -> None:
    """The operator finds the bad value at once."""
    with pytest.raises(SettingsError) as caught:
        settings(*sources)

    expected = "expected a whole number, 1 or more, not 'x'"
    assert str(caught.value) == where + expected


def test_a_file_is_read(tmp_path: Path) -> None:
    """Comments, quotes and `export` are understood, and empty values."""
    content = b"# a comment\nexport SLOTS=3\nIP=\nPORT = '9000' # why\n"

    assert read_env_file(write(tmp_path, content)) == {"SLOTS": "3", "PORT": "9000"}


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path: Path) -> None:
    """Some editors begin a file with one."""
    assert read_env_file(write(tmp_path, b"\xef\xbb\xbfSLOTS=3")) == {"SLOTS": "3"}


def test_the_file_here_is_read_without_being_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`.env` in the current directory is the default."""
    (tmp_path / ".env").write_text("SLOTS=3")
    monkeypatch.chdir(tmp_path)

    assert read_env_file(None) == {"SLOTS": "3"}


def test_no_file_here_is_fine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that nobody asked for need not exist."""
    monkeypatch.chdir(tmp_path)

    assert read_env_file(None) == {}


def test_a_file_that_was_asked_for_must_exist(tmp_path: Path) -> None:
    """A misspelt `--env-file` is an error."""
    path = str(tmp_path / "nothing")

    with pytest.raises(SettingsError) as caught:
        read_env_file(path)

    expected = f"cannot read settings from {path}: No such file or directory"
    assert str(caught.value) == expected


def test_the_file_here_must_be_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A `.env` that is there but cannot be read is an error."""
    (tmp_path / ".env").mkdir()
    monkeypatch.chdir(tmp_path)

    with pytest.raises(SettingsError, match=r"from \.env: Is a directory"):
        read_env_file(None)


def test_a_file_must_be_text(tmp_path: Path) -> None:
    """Other bytes than UTF-8 are an error."""
    with pytest.raises(SettingsError, match="cannot read settings from"):
        read_env_file(write(tmp_path, b"SLOTS=\xff"))


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"SLOTS=1\n'BUDGET\n", 2),
        (b"SLOTS=1\nAPI_KEY\n", 2),
        (b"SLOTS=1\nexport API_KEY", 2),
        (b"SLOTS=1\n\n  \nAPI_K", 4),
        (b"SLOTS=1\n\n# why\n\nAPI_KEY='cut", 5),
    ],
)
def test_a_line_that_is_no_setting_is_named(
    tmp_path: Path, content: bytes, line: int
) -> None:
    """So is one that was cut off; the operator is told the number of the line."""
    file = write(tmp_path, content)

    with pytest.raises(SettingsError) as caught:
        read_env_file(file)

    assert str(caught.value) == f"{file}, line {line}: not of the form NAME=value"


@pytest.mark.parametrize("name", ["API_KEY", "BULK_API_KEY"])
@pytest.mark.parametrize("text", [",", ",,", " ", " , "])
@pytest.mark.parametrize("source", range(3))
def test_a_value_without_a_key_is_a_mistake(name: str, text: str, source: int) -> None:
    """Wherever it stands: it must not leave the door open."""
    option = name.lower().replace("_", "-")
    sources: list[dict[str, str]] = [{}, {}, {}]
    sources[source] = {option if source == 0 else name: text}

    with pytest.raises(SettingsError, match="expected keys, found none"):
        settings(*sources)


@pytest.mark.parametrize("name", ["API_KEY", "BULK_API_KEY"])
def test_an_empty_key_counts_as_none(name: str) -> None:
    """As any other empty value."""
    assert settings({}, {name: ""}) == Settings()


@pytest.mark.parametrize(
    ("chosen", "paths"),
    [
        ("all", {"server", "write", "poll", "client"}),
        ("none", set()),
        ("server, client", {"server", "client"}),
    ],
)
def test_fast_paths_are_all_or_none_or_those_that_are_named(
    chosen: str, paths: set[str]
) -> None:
    """One setting for all that costs less and gives the same bytes."""
    assert settings({"fast-paths": chosen}).fast_paths == paths


def test_memory_in_which_no_call_would_fit_is_refused() -> None:
    """A number of megabytes is the usual slip."""
    with pytest.raises(SettingsError, match=r"MAX_MEMORY_BYTES.*1048576 or more"):
        settings(environ={"MAX_MEMORY_BYTES": "256"})


def test_a_fast_path_that_is_unknown_is_refused_with_those_that_are_known() -> None:
    """A typing mistake does not switch anything off."""
    expected = "FAST_PATHS in the environment: expected all, none, or some of server, "
    with pytest.raises(SettingsError, match=expected):
        settings({}, {"FAST_PATHS": "sever"})


@pytest.mark.parametrize(
    ("name", "value", "path"),
    [
        ("EXPRESS", "false", "server"),
        ("WRITE_AT_ONCE", "no", "write"),
        ("POLL_DIRECTLY", "0", "poll"),
        ("UPSTREAM_CLIENT", "treq", "client"),
    ],
)
def test_a_switch_of_a_former_version_still_switches_off(
    name: str, value: str, path: str
) -> None:
    """And the log says by what it was replaced."""
    with capturedLogs() as events:
        found = settings({}, {name: value}).fast_paths

    assert found == set(FAST_PATHS) - {path}
    [said] = [formatEvent(event) for event in events]
    assert said == f"{name} is deprecated; leave {path} out of FAST_PATHS instead"


def test_a_former_switch_that_says_what_is_so_anyway_is_not_worth_a_line() -> None:
    """Such as a file with all the defaults of its time."""
    with capturedLogs() as events:
        found = settings({}, {"EXPRESS": "true", "UPSTREAM_CLIENT": "fast"}).fast_paths

    assert found == set(FAST_PATHS)
    assert events == []


def test_fast_paths_count_more_than_the_switches_of_former_versions() -> None:
    """Wherever each of them is said."""
    assert settings({"express": "false"}, {}, {"FAST_PATHS": "all"}).fast_paths == set(
        FAST_PATHS
    )


def test_a_former_switch_that_cannot_be_understood_is_refused() -> None:
    """As any other setting."""
    with pytest.raises(SettingsError, match="EXPRESS in the environment: expected"):
        settings({}, {"EXPRESS": "maybe"})


@pytest.mark.parametrize("port", ["8081", "unix:/run/abproxy.sock"])
def test_two_ports_cannot_be_the_same(port: str) -> None:
    """It would be called in use, as if by another process."""
    with pytest.raises(SettingsError, match="OPERATIONS_PORT is the same as PORT"):
        settings({"port": port, "operations-port": port})


@pytest.mark.parametrize(
    ("ip", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8081"),
        ("127.0.0.1", "http://localhost:8081/v1"),
        ("0.0.0.0", "http://127.0.0.1:8081"),
        ("10.0.0.1", "http://a:8080,http://10.0.0.1:8081"),
    ],
)
def test_the_proxy_is_not_its_own_inference_server(ip: str, url: str) -> None:
    """Each call would be sent round and round."""
    with pytest.raises(SettingsError, match="is the address of abproxy itself"):
        settings({"ip": ip, "inference-service-url": url})


@pytest.mark.parametrize(
    ("ip", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8082"),
        ("10.0.0.1", "http://localhost:8081"),
        ("127.0.0.1", "http://a:8081"),
    ],
)
def test_a_server_at_another_place_may_have_the_same_port_or_host(
    ip: str, url: str
) -> None:
    """As beside it on one machine, or at the usual port of another."""
    read = settings({"ip": ip, "inference-service-url": url})

    assert read.upstream_url == url


def test_two_ports_may_both_be_chosen_by_the_system() -> None:
    """They are different ones then."""
    assert settings({"port": "0", "operations-port": "0"}).operations_port == "0"
