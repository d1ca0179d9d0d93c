"""Several models that change while the proxy runs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.models import SeveralModels, several_models, tables


@pytest.fixture
def here(tmp_path: Path) -> Iterator[SeveralModels]:
    """Give a proxy of two models."""
    with several_models(tmp_path, tables(a="", b="budget = 64")) as proxy:
        yield proxy


def _status(here: SeveralModels, path: str) -> Any:
    return [each.status for each in here.call(path, inputs="x").answers()]


def test_a_new_model_takes_calls(here: SeveralModels, said: list[str]) -> None:
    """From the moment when the file is read again."""
    assert _status(here, "/models/c/embed") == [404]
    here.write(tables(a="", b="budget = 64", c=""))

    here.reload()

    here.call("/models/c/embed", inputs="x")
    here.answer_all()
    assert len(here.sent("c")) == 1
    assert "Model added: c" in said


def test_a_model_that_is_gone_takes_no_calls(
    here: SeveralModels, said: list[str]
) -> None:
    """Who asks for it hears that there is no such model."""
    here.write(tables(a=""))

    here.reload()

    assert _status(here, "/models/b/embed") == [404]
    assert "Model removed: b" in said
    here.clock.advance(1)
    assert "b is not served any more" in said


def test_calls_of_a_model_that_is_gone_are_answered(here: SeveralModels) -> None:
    """Those that it has accepted; it is closed only then."""
    client = here.call("/models/b/embed", inputs="x")
    here.write(tables(a=""))

    here.reload()
    here.clock.advance(3)
    assert [each.name for each in here.serving.all] == ["a", "b"]
    here.answer_all()
    here.clock.advance(1)

    assert [each.status for each in client.answers()] == [200]
    assert [each.name for each in here.serving.all] == ["a"]


def test_limits_of_one_model_change_alone(here: SeveralModels, said: list[str]) -> None:
    """And the log says of which model."""
    here.write(tables(a="", b="budget = 32\nmax_waiting_inputs = 7"))

    here.reload()

    assert here.model("b").collector.budget.limit.items == 32
    assert here.model("b").collector.admission.max_items == 7
    assert here.model("a").collector.admission.max_items == 10_000
    assert "Model b: settings changed: BUDGET, MAX_WAITING_INPUTS" in said


def test_a_setting_of_all_changes_for_those_that_have_none_of_their_own(
    here: SeveralModels,
) -> None:
    """A table wins over it."""
    here.environ["BUDGET"] = "128"

    here.reload()

    limits = [model.collector.budget.limit.items for model in here.serving.models]
    assert limits == [128, 64]


def test_what_of_a_model_needs_a_restart_is_said(
    here: SeveralModels, said: list[str]
) -> None:
    """And stays as it is, while the rest of the table changes."""
    text = tables(a="", b="budget = 32").replace("http://b:8080", "http://other")
    here.write(text)

    here.reload()

    assert "Model b: settings need a restart: INFERENCE_SERVICE_URL" in said
    assert here.model("b").settings.upstream_url == "http://b:8080"
    assert here.model("b").collector.budget.limit.items == 32


def test_it_is_said_again_as_long_as_it_waits_for_a_restart(
    here: SeveralModels, said: list[str]
) -> None:
    """What is in force is compared, not what was read last."""
    here.write(tables(a="", b="").replace("http://b:8080", "http://other"))

    here.reload()
    here.reload()

    line = "Model b: settings need a restart: INFERENCE_SERVICE_URL"
    assert said.count(line) == 2


def test_other_names_count_from_then_on(here: SeveralModels) -> None:
    """Names, what the server calls it, and which model is the default."""
    here.write(tables(a="", b='names = ["x"]\nmodel = "y"\ndefault = true'))

    here.reload()

    here.call("/v1/embeddings", input="i", model="x")
    here.call("/embed", inputs="i")
    here.answer_all()
    assert here.sent("b")[0] == (b"/v1/embeddings", b'{"input":"i","model":"y"}')
    assert len(here.sent("b")) == 2


@pytest.mark.parametrize(
    "broken", ["[a", "", "[a]\nbudget = 0", "[a]\nupstream_tls_ca = '/nowhere'"]
)
def test_a_broken_file_changes_nothing(
    here: SeveralModels, said: list[str], broken: str
) -> None:
    """All models go on as they are."""
    here.write(broken)

    here.reload()

    assert [each.name for each in here.serving.models] == ["a", "b"]
    assert said[-1].startswith("Settings stay as they are: MODELS: ")


def test_a_new_model_that_cannot_be_made_changes_nothing(
    here: SeveralModels, said: list[str]
) -> None:
    """Its certificates are looked at when it is made."""
    text = tables(a="", b="budget = 32", c="upstream_tls_ca = '/nowhere'")
    here.write(text.replace("http://c", "https://c"))

    here.reload()

    assert [each.name for each in here.serving.models] == ["a", "b"]
    assert here.model("b").collector.budget.limit.items == 64
    assert said[-1].startswith("Settings stay as they are: MODELS: [c]: cannot read")


def test_one_model_and_several_need_a_restart(
    here: SeveralModels, said: list[str]
) -> None:
    """A proxy that has several goes on with them."""
    del here.environ["MODELS"]

    here.reload()

    assert [each.name for each in here.serving.models] == ["a", "b"]
    assert "Settings need a restart: MODELS" in said


def test_nothing_is_said_of_a_file_that_is_the_same(
    here: SeveralModels, said: list[str]
) -> None:
    """But that it is."""
    here.reload()

    assert said == ["Settings read again: nothing has changed"]


def test_a_key_of_a_model_changes_with_its_file(
    tmp_path: Path, said: list[str]
) -> None:
    """Looked at as all files with keys, without a signal."""
    key = tmp_path / "key"
    key.write_text("old")
    with several_models(tmp_path, tables(a="", b=f"key_file = '{key}'")) as here:
        key.write_text("new")

        here.service.look_at_keys()

        here.call("/models/b/embed", inputs="x")
        [sent] = here.upstreams["b"].sent
        here.answer_all()
        assert (b"Authorization", b"Bearer new") in sent.request.headers
        assert "key_file of model b has changed, and is used" in said
        assert "new" not in "".join(said).replace("new one", "")


def test_a_key_file_that_is_lost_keeps_the_key(tmp_path: Path, said: list[str]) -> None:
    """And is complained of once."""
    key = tmp_path / "key"
    key.write_text("old")
    with several_models(tmp_path, tables(a="", b=f"key_file = '{key}'")) as here:
        key.unlink()

        here.service.look_at_keys()
        here.service.look_at_keys()

        assert here.model("b").settings.upstream_key == "old"
        [line] = [each for each in said if each.startswith("The former keys stay")]
        assert "[b]" in line


def test_memory_is_divided_anew(tmp_path: Path) -> None:
    """Among the models that there are now."""
    with several_models(tmp_path, tables(a="", b=""), CACHE_BYTES="1000") as here:
        here.write(tables(a=""))

        here.reload()
        here.clock.advance(1)

        assert here.model("a").layers.memory.store.max_size == 1000
