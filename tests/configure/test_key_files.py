"""Keys that are in files, at the start and while the proxy runs."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from abproxy.errors import SettingsError
from abproxy.http.messages import UpstreamRequest
from abproxy.service.lifetime import LOOK_EVERY_S
from abproxy.service.proxy import IDLE_STAY_S
from abproxy.settings.key_files import KEY_FILES, KeyFile
from abproxy.settings.settings import Settings, settings_from
from abproxy.settings.sources import read_env_file
from abproxy.workers.shares import share_of
from support.proxy import InMemoryProxy, in_memory_proxy, wired
from support.upstream import OpenUpstream

OLD, NEW = ("Authorization", "Bearer old"), ("Authorization", "Bearer new")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Make a file with one key."""
    path = tmp_path / "keys"
    path.write_text("old\n")
    return path


def _read(**environ: str) -> Settings:
    return settings_from({}, environ, {})


# At the start


@pytest.mark.parametrize(
    ("content", "keys"),
    [
        (b"one", ("one",)),
        (b"one\ntwo\n", ("one", "two")),
        (b"\n  one \r\n\r\n# of the importer\r\ntwo\r\n", ("one", "two")),
        (b"\xef\xbb\xbfone\n", ("one",)),
        (b"one,two\n", ("one,two",)),
        (b"a#b\n", ("a#b",)),
    ],
)
def test_a_file_has_one_key_a_line(
    file: Path, content: bytes, keys: tuple[str, ...]
) -> None:
    """Blank lines and comments are none."""
    file.write_bytes(content)

    assert _read(API_KEY_FILE=str(file)).api_keys == keys
    assert _read(BULK_API_KEY_FILE=str(file)).bulk_api_keys == keys


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "there is no key in it"),
        (b"\n \n# nothing\n", "there is no key in it"),
        (b"se\xffcret", "it is not text"),
        (b"sec\0ret", "expected a key of visible ASCII characters"),
        ("schlüssel".encode(), "expected a key of visible ASCII characters"),
        (b"sec ret", "expected a key of visible ASCII characters"),
        (b"s" * 2_000_000, "it has more than 1048576 bytes"),
    ],
)
@pytest.mark.parametrize(
    "name", ["API_KEY_FILE", "BULK_API_KEY_FILE", "INFERENCE_SERVICE_KEY_FILE"]
)
def test_a_file_that_cannot_be_used_is_an_error_at_the_start(
    file: Path, name: str, content: bytes, why: str
) -> None:
    """One line says which and why, and nothing of what is in it."""
    file.write_bytes(content)

    with pytest.raises(SettingsError) as caught:
        _read(**{name: str(file)})

    assert str(caught.value) == f"{name}: cannot use {file}: {why}"


def test_a_file_that_is_missing_is_an_error_at_the_start(tmp_path: Path) -> None:
    """No key would be asked for without it."""
    path = tmp_path / "gone"

    with pytest.raises(SettingsError) as caught:
        _read(API_KEY_FILE=str(path))

    assert str(caught.value) == (
        f"API_KEY_FILE: cannot use {path}: No such file or directory"
    )


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    """As is mounted where the file to mount is missing."""
    with pytest.raises(SettingsError, match=r"Is a directory"):
        _read(API_KEY_FILE=str(tmp_path))


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    """It may never have a writer, and cannot be read again."""
    path = tmp_path / "pipe"
    os.mkfifo(path)

    with pytest.raises(SettingsError, match=r"it is not a regular file$"):
        _read(API_KEY_FILE=str(path))


def test_the_inference_server_has_one_key(file: Path) -> None:
    """Which of several would be sent is not guessed."""
    assert _read(INFERENCE_SERVICE_KEY_FILE=str(file)).upstream_key == "old"

    file.write_text("one\ntwo\n")
    with pytest.raises(SettingsError, match=r"there is more than one key in it$"):
        _read(INFERENCE_SERVICE_KEY_FILE=str(file))


@pytest.mark.parametrize("name", ["API_KEY", "BULK_API_KEY", "INFERENCE_SERVICE_KEY"])
def test_a_key_is_set_in_one_place(file: Path, name: str) -> None:
    """Not in a file and beside it, wherever each of them is set."""
    with pytest.raises(SettingsError) as caught:
        settings_from({}, {name: "secret"}, {f"{name}_FILE": str(file)})

    assert str(caught.value) == (
        f"{name} and {name}_FILE are both set; keep one of them"
    )


def test_another_kind_of_key_may_be_set_directly(file: Path) -> None:
    """They are settings of their own."""
    settings = _read(API_KEY_FILE=str(file), BULK_API_KEY="bulk", API_KEY="")

    assert (settings.api_keys, settings.bulk_api_keys) == (("old",), ("bulk",))


# While the proxy runs


@contextmanager
def _running(
    elsewhere: OpenUpstream | None = None, **settings: Any
) -> Iterator[InMemoryProxy]:
    """Run a proxy with these settings, and those in the files that they name."""
    files = {each.of: each.read(settings[each.name]) for each in _named(settings)}
    with wired(elsewhere or OpenUpstream(), **settings, **files) as here:
        here.service.startService()
        here.answer_all()
        yield here
        here.answer_all()
        stopped = here.service.stopService()
        here.clock.pump([0, IDLE_STAY_S, 0])
        assert stopped.called


def _named(settings: Mapping[str, Any]) -> list[KeyFile]:
    return [each for each in KEY_FILES if each.name in settings]


def _look(here: InMemoryProxy) -> None:
    """Let the time pass after which files are looked at again."""
    here.clock.advance(LOOK_EVERY_S)


def _status(here: InMemoryProxy, key: tuple[str, str]) -> int:
    return here.ask("GET", "/info", b"", key).status


def test_a_changed_file_counts_without_a_signal(file: Path, said: list[str]) -> None:
    """The new key lets in, and the old one does no more."""
    with _running(api_key_file=str(file)) as here:
        assert (_status(here, OLD), _status(here, NEW)) == (200, 401)
        said.clear()
        file.write_text("new\n")

        _look(here)

        assert (_status(here, OLD), _status(here, NEW)) == (401, 200)
        assert said == ["API_KEY_FILE has changed, and is used"]


def test_a_folder_that_is_swapped_counts(tmp_path: Path) -> None:
    """As Kubernetes does it: by a symbolic link, and with no newer file."""
    for name in ("old", "new"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "keys").write_text(name)
        os.utime(folder / "keys", (0, 0))
    (tmp_path / "..data").symlink_to("old")
    (tmp_path / "keys").symlink_to("..data/keys")
    with _running(api_key_file=str(tmp_path / "keys")) as here:
        (tmp_path / "..data_tmp").symlink_to("new")
        (tmp_path / "..data_tmp").rename(tmp_path / "..data")

        _look(here)

        assert (_status(here, OLD), _status(here, NEW)) == (401, 200)


@pytest.mark.parametrize(
    "content", [None, b"", b"\xff\xfe", b"a key", b"k" * 2_000_000]
)
def test_a_file_that_is_lost_changes_nothing(
    file: Path, said: list[str], content: bytes | None
) -> None:
    """The old keys stay, which the log says once; and once that it is there again."""
    with _running(api_key_file=str(file), rate_limit=9) as here:
        said.clear()
        file.unlink()
        if content is not None:
            file.write_bytes(content)

        for _ in range(3):
            _look(here)

        assert (_status(here, OLD), _status(here, NEW)) == (200, 401)
        [line] = said
        assert line.startswith(f"The former keys stay: API_KEY_FILE: cannot use {file}")
        file.write_text("old")
        _look(here)
        _look(here)
        assert said[1:] == ["API_KEY_FILE can be used again"]


def test_a_file_that_is_lost_keeps_no_other_from_being_used(
    tmp_path: Path, file: Path
) -> None:
    """Each counts for itself."""
    bulk = tmp_path / "bulk"
    bulk.write_text("bulk")
    with _running(api_key_file=str(file), bulk_api_key_file=str(bulk)) as here:
        file.unlink()
        bulk.write_text("new")

        _look(here)

        assert (_status(here, OLD), _status(here, NEW)) == (200, 200)


def test_the_key_for_the_inference_server_changes_while_it_runs(file: Path) -> None:
    """In batches, in what is relayed, and in our own questions."""
    elsewhere = OpenUpstream()
    with _running(elsewhere, upstream_key_file=str(file)) as here:
        file.write_text("new")

        _look(here)

        client = here.call("a")
        here.ask("GET", "/info")
        [batch] = here.upstream.open
        assert ("Authorization", "Bearer new") in _lines(batch.request)
        assert elsewhere.shown == ["Bearer new"]
        here.answer_all()
        health = here.connect()
        health.ask("GET", "/health", b"")
        [question] = here.upstream.open
        assert ("Authorization", "Bearer new") in _lines(question.request)
        here.answer_all()
        client.leave()
        health.leave()


def _lines(request: UpstreamRequest) -> list[tuple[str, str]]:
    return [(name.decode(), value.decode()) for name, value in request.headers]


def test_the_key_for_the_inference_server_changes_on_a_reload(tmp_path: Path) -> None:
    """Without a restart, as the keys of clients."""
    env_file = tmp_path / ".env"
    env_file.write_text("INFERENCE_SERVICE_KEY=old\n")
    upstream = OpenUpstream()
    proxy = in_memory_proxy(upstream)
    configuration = proxy.service.reload.__self__  # type: ignore[attr-defined]
    configuration.read = lambda: settings_from({}, {}, read_env_file(str(env_file)))

    configuration.reload()
    proxy.ask("GET", "/info")
    env_file.write_text("INFERENCE_SERVICE_KEY=new\n")
    configuration.reload()
    proxy.ask("GET", "/info")

    assert upstream.shown == ["Bearer old", "Bearer new"]


def test_a_reload_that_finds_no_file_changes_nothing(
    tmp_path: Path, file: Path, said: list[str]
) -> None:
    """Not even what else is new in the settings."""
    env_file = tmp_path / ".env"
    env_file.write_text(f"API_KEY_FILE={file}\n")
    proxy = in_memory_proxy(OpenUpstream())
    configuration = proxy.service.reload.__self__  # type: ignore[attr-defined]
    configuration.read = lambda: settings_from({}, {}, read_env_file(str(env_file)))
    configuration.reload()
    env_file.write_text(f"API_KEY_FILE={file}\nRATE_LIMIT=1\n")
    file.unlink()
    said.clear()

    configuration.reload()

    assert proxy.ask("GET", "/info", b"", NEW).status == 401
    assert proxy.app.policy.inputs_per_s is None
    assert "".join(said) == (
        f"Settings stay as they are: API_KEY_FILE: cannot use {file}: "
        "No such file or directory"
    )


def test_a_reload_without_the_file_does_not_open_the_door(
    tmp_path: Path, file: Path, said: list[str]
) -> None:
    """That the setting is lost is no wish to ask for no key."""
    env_file = tmp_path / ".env"
    env_file.write_text(f"API_KEY_FILE={file}\n")
    proxy = in_memory_proxy(OpenUpstream())
    configuration = proxy.service.reload.__self__  # type: ignore[attr-defined]
    configuration.read = lambda: settings_from({}, {}, read_env_file(str(env_file)))
    configuration.reload()
    env_file.write_text("RATE_LIMIT=1\n")
    said.clear()

    configuration.reload()

    assert proxy.ask("GET", "/info").status == 401
    [line] = said
    assert line.startswith("Settings stay as they are: no key is left in API_KEY")


def test_workers_do_not_look_at_files(file: Path) -> None:
    """Their supervisor does, so that all of them have the same keys."""
    settings = Settings(workers=2, api_key_file=str(file), api_keys=("old",))

    share = share_of(settings, "http://upstream")

    assert share.api_key_file is None
    assert share.api_keys == ("old",)
