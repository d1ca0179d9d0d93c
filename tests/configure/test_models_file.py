"""The file of several models."""

from pathlib import Path

import pytest
from attrs import fields

from abproxy.errors import SettingsError
from abproxy.settings.batching import Batching
from abproxy.settings.settings import (
    Settings,
    list_settings,
    of_models,
    settings_from,
    settings_of,
)
from abproxy.settings.sources import variable
from abproxy.settings.upstream import Upstream
from abproxy.workers.control import read_settings, write_settings
from abproxy.workers.shares import share_of


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the file is."""
    return tmp_path / "models.toml"


def read(file: Path, text: str, **environ: str) -> Settings:
    """Read settings with this file of models."""
    file.write_text(text, encoding="utf-8")
    of_all = {"INFERENCE_SERVICE_URL": "http://of-all"}
    return settings_from({}, {"MODELS": str(file), **of_all, **environ}, {})


def of(settings: Settings, name: str) -> Settings:
    """Return the settings of one model."""
    assert settings.models is not None
    [table] = [each for each in settings.models.tables if each.name == name]
    return settings_of(settings, table)


def refused(file: Path, text: str, **environ: str) -> str:
    """Return why the file is refused, without its path."""
    with pytest.raises(SettingsError) as caught:
        read(file, text, **environ)
    return str(caught.value).replace(f"{file}", "FILE")


def test_a_table_says_what_is_of_its_model_alone(file: Path) -> None:
    """What it does not say is as for one model."""
    text = """
    [a]
    url = "http://a:80/"
    max_batch_inputs = 8
    packing = false
    max_wait_time = 2.5
    share_apart = ["x-user", "body.tenant"]
    upstream_headers = ["X-One: 1", "X-Two: 2"]
    [b]
    inference_service_url = "https://b"
    """
    settings = read(file, text, MAX_BATCH_INPUTS="64", SLOTS="3")

    a, b = of(settings, "a"), of(settings, "b")
    assert (a.upstream_url, b.upstream_url) == ("http://a:80", "https://b")
    assert (a.max_batch_inputs, b.max_batch_inputs) == (8, 64)
    assert (a.slots, b.slots) == (3, 3)
    assert (a.packing, a.max_wait_ms) == (False, 2.5)
    assert a.share_apart == ("x-user", "body.tenant")
    assert a.upstream_headers == (("X-One", "1"), ("X-Two", "2"))


def test_a_table_without_a_url_has_the_server_of_all(file: Path) -> None:
    """If the settings name one."""
    settings = read(file, "[a]\n", INFERENCE_SERVICE_URL="http://one")

    assert of(settings, "a").upstream_url == "http://one"


def test_a_model_for_which_no_server_is_named_is_refused(file: Path) -> None:
    """That it is the usual one is hardly meant, and would be silent."""
    file.write_text('[a]\nurl = "http://a"\n[b]\n', encoding="utf-8")

    with pytest.raises(SettingsError) as caught:
        settings_from({}, {"MODELS": str(file)}, {})

    assert str(caught.value) == (
        f"MODELS: {file}: [b] has no url, and INFERENCE_SERVICE_URL is not set"
    )


def test_a_key_comes_from_a_file_of_the_model(file: Path) -> None:
    """In the place of the one that all others have."""
    key = file.with_name("key")
    key.write_text("of-a\n")
    text = f'[a]\nkey_file = "{key}"\n[b]\n[c]\nkey = "of-c"\n'

    settings = read(file, text, INFERENCE_SERVICE_KEY="of-all")

    keys = [of(settings, name).upstream_key for name in "abc"]
    assert keys == ["of-a", "of-all", "of-c"]


def test_memory_for_rows_is_divided_among_models(file: Path) -> None:
    """But one that has its own has it besides."""
    text = "[a]\n[b]\n[c]\ncache_bytes = 7\n"

    settings = read(file, text, CACHE_BYTES="1000")

    assert [of(settings, name).cache_bytes for name in "abc"] == [500, 500, 7]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "MODELS: there is no model in FILE"),
        ("x", "MODELS: cannot use FILE: Expected '=' after a key"),
        (f"a = {'9' * 5000}", "MODELS: cannot use FILE: Exceeds the limit"),
        (f"a = {'[' * 5000}", "MODELS: cannot use FILE: it is nested too deep"),
        ("a = 1", "MODELS: FILE: a is in no table; write [NAME] in a line before it"),
        (
            "[a]\nMAX_BATCH_INPUTS = 3",
            (
                "MODELS: FILE: [a] MAX_BATCH_INPUTS: no setting of a model; "
                "max_batch_inputs is"
            ),
        ),
        (
            "[a-1.5]\nurl = 'http://a'",
            'MODELS: FILE: a name with a dot needs quotes, like ["a-1.5"]',
        ),
        (
            "[a]\nmax_batch_input = 3",
            (
                "MODELS: FILE: [a] max_batch_input: no setting of a model; "
                "max_batch_inputs is"
            ),
        ),
        ("[a]\nurls = 3", "MODELS: FILE: [a] urls: expected a URL"),
        ("[a]\nport = 3", "MODELS: FILE: [a] port: no setting of a model"),
        ("[a]\nembedded = true", "MODELS: FILE: [a] embedded: no setting of a model"),
        (
            "[a]\nbudget = 0",
            "MODELS: FILE: [a] budget: expected a whole number, 1 or more, not '0'",
        ),
        ("[a]\nbudget = {}", "MODELS: FILE: [a] budget: expected text, a number"),
        ("[a]\nbudget = true", "MODELS: FILE: [a] budget: expected a whole number"),
        ("[a]\nslots = ''", "MODELS: FILE: [a] slots: expected text, a number"),
        ("[a]\nnames = 'b'", "MODELS: FILE: [a] names: expected a list of texts"),
        ("[a]\nnames = ['']", "MODELS: FILE: [a] names: expected visible text"),
        ("[a]\nmodel = 3", "MODELS: FILE: [a] model: expected visible text"),
        ("[a]\ndefault = 1", "MODELS: FILE: [a] default: expected true or false"),
        ('["a\\n"]', "MODELS: FILE: [a\n]: expected visible text"),
        (
            "[a]\nnames = ['x']\n[b]\nnames = ['x']",
            "MODELS: FILE: [b] names: 'x' is a name of [a] already",
        ),
        (
            "[a]\nnames = ['a']",
            "MODELS: FILE: [a] names: 'a' is a name of [a] already",
        ),
        (
            "[a]\ndefault = true\n[b]\ndefault = true",
            "MODELS: FILE has more than one default",
        ),
        (
            "[a]\nurl = 'http://a'\ninference_service_url = 'http://b'",
            "MODELS: FILE: [a] inference_service_url: it is set twice",
        ),
        (
            "[a]\nkey = 'x'\nkey_file = 'y'",
            "MODELS: FILE: [a] has both key and key_file; keep one of them",
        ),
        (
            "[a]\nkey_file = '/nowhere'",
            "MODELS: FILE: [a] key_file: INFERENCE_SERVICE_KEY_FILE: cannot use",
        ),
        (
            "[a]\nupstream_tls_ca = 'x'",
            "MODELS: FILE: [a]: UPSTREAM_TLS_CA is set, but INFERENCE_SERVICE_URL has",
        ),
    ],
)
def test_a_mistake_is_told_with_its_place(file: Path, text: str, why: str) -> None:
    """File, table and key, and what was expected."""
    assert refused(file, text).startswith(why)


def test_a_file_that_is_not_there_is_told(file: Path) -> None:
    """With the reason of the system."""
    with pytest.raises(SettingsError, match=r"MODELS: cannot use .*No such file"):
        settings_from({}, {"MODELS": str(file)}, {})


def test_an_embedded_model_is_none_of_several(file: Path) -> None:
    """It is the only one, or there is none."""
    why = refused(file, "[a]", EMBEDDED="true")

    assert why == "EMBEDDED and MODELS are both set; keep one of them"


@pytest.mark.parametrize("line", ["key = 'se cret'", "upstream_headers = ['se cret']"])
def test_an_error_does_not_repeat_a_secret(file: Path, line: str) -> None:
    """It may be logged."""
    assert "cret" not in refused(file, f"[a]\n{line}")


def test_a_secret_is_shown_nowhere(file: Path) -> None:
    """Neither where settings are listed, nor by accident."""
    settings = read(file, "[a]\nkey = 'sesame'\nupstream_headers = ['X-A: sesame']\n")

    listed = list_settings(settings) + list_settings(of(settings, "a"))
    assert "sesame" not in repr(settings) + repr(listed)
    shown = {each["name"]: each["value"] for each in listed}
    assert shown["MODELS"].endswith("models.toml")
    assert shown["INFERENCE_SERVICE_KEY"] == "set"


def test_workers_are_told_of_all_models(file: Path) -> None:
    """In what they are sent at the start; each has a part of what is limited."""
    key = file.with_name("key")
    key.write_text("of-a")
    text = f"[a]\nkey_file = '{key}'\nmax_waiting_inputs = 90\nslots = 3\nbudget = 50\n"
    settings = read(file, text, WORKERS="2")

    one = read_settings(write_settings(share_of(settings, "http://x")))

    a = of(one, "a")
    assert (a.upstream_key, a.upstream_key_file) == ("of-a", None)
    assert (a.max_waiting_inputs, a.slots, a.budget) == (45, 1, 50)


def test_each_setting_of_a_model_is_about_one_upstream() -> None:
    """What is the process's, such as keys of clients, is in no table."""
    names = {each.name for each in of_models()}

    assert names >= {"upstream_url", "upstream_dialect", "budget", "share_alone"}
    assert not names & {"api_keys", "port", "max_memory_bytes", "rate_limit", "workers"}


def _documented() -> str:
    page = Path(__file__).parents[2] / "docs" / "many-models.md"
    return page.read_text(encoding="utf-8")


def test_the_example_of_the_documentation_can_be_used(file: Path) -> None:
    """As it stands there, but for the file with a key."""
    key = file.with_name("key")
    key.write_text("sesame")
    example = _documented().partition("```toml\n")[2].partition("```")[0]

    settings = read(file, example.replace("/run/secrets/openai", str(key)))

    assert settings.models is not None
    assert [each.name for each in settings.models.tables] == [
        "minilm",
        "BAAI/bge-m3",
        "ranker",
        "openai-small",
    ]
    assert of(settings, "openai-small").upstream_key == "sesame"


def test_the_documentation_names_what_a_table_may_have() -> None:
    """But the settings of two topics, which it names as a whole."""
    topics = {each.name for base in (Upstream, Batching) for each in fields(base)}
    others = [each for each in of_models() if each.name not in topics]

    names = [variable(each.metadata["option"]) for each in others]
    assert [name for name in names if f"`{name}`" not in _documented()] == []
