"""The figures of several models."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from support.models import SeveralModels, several_models, tables
from support.proxy import wired


@pytest.fixture
def here(tmp_path: Path) -> Iterator[SeveralModels]:
    """Give a proxy of two models."""
    with several_models(tmp_path, tables(a='names = ["x"]', b="")) as proxy:
        yield proxy


def figures(here: SeveralModels) -> dict[tuple[str, str | None], float]:
    """Read all metrics, by name and model."""
    text = here.ask("GET", "/metrics").body.decode()
    return {
        (sample.name, sample.labels.get("model")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.endswith("_bucket")
    }


@pytest.mark.parametrize("route", ["/embed", "/embed_all"])
def test_figures_of_models_are_told_apart_by_a_label(
    here: SeveralModels, route: str
) -> None:
    """Those of calls, of batches and of the moment."""
    for path in (route, f"/models/b{route}", f"/models/b{route}"):
        here.call(path, inputs="i")
        here.answer_all()

    found = figures(here)
    for name in ("calls_total", "batches_total", "batch_items_sum"):
        assert found["abproxy_" + name, "a"] == 1
        assert found["abproxy_" + name, "b"] == 2
    assert found["abproxy_upstream_up", "b"] == 1
    assert found["abproxy_waiting_max_items", "a"] == 10_000


def test_each_family_is_written_once(here: SeveralModels) -> None:
    """As Prometheus asks for."""
    text = here.ask("GET", "/metrics").body.decode()

    types = [line for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(types) == len(set(types))


def test_figures_of_the_process_have_no_label(here: SeveralModels) -> None:
    """There is one of each, however many models there are."""
    found = figures(here)

    for name in ("connections", "memory_max_bytes", "draining", "build_info"):
        assert [model for each, model in found if each == f"abproxy_{name}"] == [None]
    assert ("process_cpu_seconds_total", None) in found


def test_a_refusal_before_the_model_is_known_is_of_the_process(tmp_path: Path) -> None:
    """One that the model itself gives has its label."""
    file = tables(a="max_call_inputs = 1", b="")
    with several_models(tmp_path, file, API_KEY="sesame") as here:
        here.call("/embed", inputs="i")
        shown = ("Authorization", "Bearer sesame")
        client = here.connect()
        client.embed(b'{"inputs":["i","j"]}', shown)
        text = here.ask("GET", "/metrics", key="sesame").body.decode()

        assert 'abproxy_refusals_total{reason="key"} 1.0' in text
        line = 'abproxy_refusals_total{model="a",reason="call_size"} 1.0'
        assert line in text


def test_a_model_that_is_gone_is_shown_no_more(here: SeveralModels) -> None:
    """Once it has answered what it had accepted."""
    here.write(tables(a=""))
    here.reload()
    here.clock.advance(1)

    assert {model for _, model in figures(here)} == {None, "a"}


def test_with_one_model_no_figure_has_the_label() -> None:
    """Nor has the status a list of models."""
    with wired() as here:
        here.call("a")
        here.answer_all()

        assert b"model=" not in here.ask("GET", "/metrics").body
        assert "models" not in here.page("/-/status.json")


def test_the_status_is_that_of_the_model_asked_for(here: SeveralModels) -> None:
    """By any of its names; without one it is the default's."""
    here.call("/models/b/embed", inputs="i")
    here.answer_all()

    def status(query: str) -> Any:
        return here.ask("GET", f"/-/status.json{query}").json

    assert status("?model=b")["totals"]["calls"] == 1
    assert status("?model=b")["upstream"]["url"] == "http://b:8080"
    assert status("?model=x")["model"] == "a"
    assert status("")["totals"]["calls"] == 0
    assert status("?model=unknown")["model"] == "a"


def test_the_status_lists_all_models(here: SeveralModels) -> None:
    """With what matters of each."""
    here.call("/models/b/embed", inputs=["i", "j"])

    models = here.ask("GET", "/-/status.json").json["models"]

    here.answer_all()
    assert [each["name"] for each in models] == ["a", "b"]
    assert models[0]["names"] == ["a", "x"]
    assert [each["items_in_flight"] for each in models] == [0, 2]


def test_the_status_of_a_model_has_its_settings(tmp_path: Path) -> None:
    """Those in force for it."""
    with several_models(tmp_path, tables(a="", b="slots = 3")) as here:
        status = here.ask("GET", "/-/status.json?model=b").json

        shown = {each["name"]: each["value"] for each in status["settings"]}
        assert shown["SLOTS"] == "3"


def test_the_hourly_report_names_each_model(here: SeveralModels) -> None:
    """Of those that were called."""
    here.call("/models/b/embed", inputs="i")
    here.answer_all()

    assert here.service.report().startswith("b: ")


@pytest.mark.parametrize("is_fast", [True, False])
def test_the_access_log_has_the_path_as_it_was_sent(
    tmp_path: Path, *, is_fast: bool
) -> None:
    """And as JSON the model, however it was named."""
    log = tmp_path / "access.log"
    lines = {"ACCESS_LOG": str(log), "LOG_FORMAT": "json"}
    file = tables(a="", b="")
    with several_models(tmp_path, file, is_fast=is_fast, **lines) as here:
        here.call("/models/b/embed", inputs="i")
        here.call("/v1/embeddings", input="i", model="b")
        here.answer_all()
        here.ask("GET", "/models/b/info")

    written = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(each["path"], each.get("model")) for each in written] == [
        ("/models/b/embed", "b"),
        ("/v1/embeddings", "b"),
        ("/models/b/info", "b"),
    ]
