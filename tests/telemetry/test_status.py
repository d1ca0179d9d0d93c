"""Everything about the proxy at one moment."""

from collections.abc import Iterator
from typing import Any

import attrs
import msgspec
import pytest
from attrs import evolve

from abproxy import __version__
from abproxy.errors import CannotConnect, UpstreamTimeout
from abproxy.events import BlockedBy
from abproxy.settings.settings import Settings
from abproxy.telemetry.diagnosis import about_slots
from abproxy.telemetry.status import LANES
from abproxy.upstream.server_info import ServerInfo
from support.batching import texts
from support.proxy import START, InMemoryProxy, wired


@pytest.fixture
def here() -> Iterator[InMemoryProxy]:
    """Wire a proxy with one slot."""
    with wired(slots=1) as proxy:
        yield proxy
        proxy.answer_all()


def _call_each(here: InMemoryProxy, *texts: str) -> None:
    for text in texts:
        here.call(text)
        here.answer_all()


def _call_in_lanes(here: InMemoryProxy, count: int) -> None:
    """Have one call with one input wait, one of another kind with two, and so on."""
    for inputs in range(1, count + 1):
        here.call(*texts(inputs), dimensions=inputs)


def test_it_says_which_version_runs_and_since_when(here: InMemoryProxy) -> None:
    """A page can tell whether the proxy was started anew."""
    here.clock.advance(5)

    status = here.status.document()

    assert status["version"] == __version__
    assert (status["started_at"], status["now"]) == (START, START + 5)


def test_it_is_json(here: InMemoryProxy) -> None:
    """Whatever is in it, the page can read it."""
    here.call("a")
    here.upstream.open[0].fail(UpstreamTimeout("too slow"))
    here.call("b")
    here.call("waits")

    status = here.status.document()

    read = msgspec.json.decode(msgspec.json.encode(status))
    assert read["totals"]["calls"] == 1
    assert read["kept_by"] == "slot"


def test_the_upstream_is_described(here: InMemoryProxy) -> None:
    """How it is, why we think so, and what it says of itself."""
    here.inference_server.discovery.info = ServerInfo(max_batch_inputs=16)
    here.call("a")
    here.clock.advance(2)
    here.upstream.open[0].fail(CannotConnect("nobody there"))

    upstream = here.status.document()["upstream"]

    assert upstream["url"] == "http://127.0.0.1:8080"
    assert upstream["state"] == "unreachable"
    assert upstream["why"] == "nobody there"
    assert upstream["since"] == START + 2
    assert upstream["max_batch_inputs"] == 16


def test_what_waits_is_listed_by_lane(here: InMemoryProxy) -> None:
    """What sets them apart, and how long they have waited."""
    here.call("in flight")
    here.call("a", "b", key="mine", truncate=True, prompt_name="query")
    here.clock.advance(0.5)
    here.call("c", key="mine", truncate=True, prompt_name="query")

    assert here.status.document()["lanes"] == [
        {
            "route": "/embed",
            "options": ["prompt_name", "truncate"],
            "has_key": True,
            "is_bulk": False,
            "calls": 2,
            "items": 3,
            "oldest_wait_ms": 500.0,
        }
    ]


def test_of_options_only_the_names_are_told(here: InMemoryProxy) -> None:
    """A value may be anything a client sent, and a name is cut."""
    here.call("in flight")

    here.call("a", prompt_name="secret", **{"x" * 100: "secret"})

    [lane] = here.status.document()["lanes"]
    assert lane["options"] == ["prompt_name", "x" * 40]


def test_a_lane_in_no_hurry_says_so(here: InMemoryProxy) -> None:
    """Others go before it."""
    here.call("in flight")

    client = here.connect()
    client.embed(b'{"inputs":"a"}', ("X-Priority", "bulk"))

    [lane] = here.status.document()["lanes"]
    assert (lane["is_bulk"], lane["has_key"], lane["options"]) == (True, False, [])


def test_only_the_longest_lanes_are_listed(here: InMemoryProxy) -> None:
    """A million option sets make no endless page."""
    here.call("in flight")

    _call_in_lanes(here, LANES + 5)

    lanes = here.status.document()["lanes"]
    assert [lane["items"] for lane in lanes] == [*range(LANES + 5, 5, -1)]


def test_batches_after_a_serial_are_listed(here: InMemoryProxy) -> None:
    """So that a page that looks every second is not sent all again."""
    _call_each(here, "a", "b", "c")

    serials = [batch["serial"] for batch in here.status.document()["batches"]]
    later = [batch["serial"] for batch in here.status.document(since=2)["batches"]]

    assert serials == [1, 2, 3]
    assert later == [3]


def test_the_latest_error_comes_first(here: InMemoryProxy) -> None:
    """Each once, with how often it came."""
    here.recorder.answered_with(UpstreamTimeout("too slow"))
    here.recorder.answered_with(CannotConnect("away"))
    here.recorder.answered_with(CannotConnect("still away"))

    errors = here.status.document()["errors"]

    told = [(error["message"], error["times"]) for error in errors]
    assert told == [("still away", 2), ("too slow", 1)]


def test_figures_of_the_moment_and_since_the_start_are_told(
    here: InMemoryProxy,
) -> None:
    """The same that Prometheus is told."""
    used_s = here.recorder.totals().cpu_s
    here.recorder.cpu_s = lambda: used_s + 2.0
    _call_each(here, "a", "b")
    here.call("in flight")

    status = here.status.document()

    assert status["flow"]["items_in_flight"] == 1
    assert status["totals"]["calls"] == 2
    assert status["kept_by"] == "nothing"
    assert status["cpu_us_per_call"] == pytest.approx(1_000_000, rel=0.1)


def test_every_setting_in_force_is_told(here: InMemoryProxy) -> None:
    """With its default, its unit and its meaning."""
    settings = {each["name"]: each for each in here.status.document()["settings"]}

    assert len(settings) == len(attrs.fields(Settings))
    assert settings["SLOTS"]["value"] == "1"
    assert settings["SLOTS"]["default"] == "none"
    assert settings["SLOTS"]["unit"] == "batches"
    assert settings["SLOTS"]["meaning"]


def test_of_a_secret_only_its_presence_is_told() -> None:
    """A look over a shoulder shows nothing."""
    with wired(api_keys=("one", "two"), upstream_key="three") as here:
        told = here.status.document()["settings"]

        values = {each["name"]: each["value"] for each in told}
        assert values["API_KEY"] == "2 keys"
        assert values["INFERENCE_SERVICE_KEY"] == "set"
        assert values["BULK_API_KEY"] == "none"


def _an_hour(here: InMemoryProxy, **figures: Any) -> None:
    here.clock.advance(3600)
    usual = {"calls": 1000, "parts": 1000, "requests": 1000, "batches": 1000}
    changed: Any = {**usual, **figures}
    recorder = here.recorder
    recorder.window.now = lambda: evolve(recorder.totals(), **changed)


def test_the_diagnosis_of_the_last_hour_is_a_line_for_the_log(
    here: InMemoryProxy,
) -> None:
    """In the words of the page."""
    _an_hour(here)

    assert here.status.report() == str(here.status.diagnosis())


def test_without_calls_there_is_no_line_for_the_log(here: InMemoryProxy) -> None:
    """A proxy at rest is quiet."""
    assert here.status.report() == ""


def test_without_calls_the_diagnosis_says_so(here: InMemoryProxy) -> None:
    """It is part of everything there is to say."""
    status = here.status.document()

    assert status["verdict"]["text"] == "No calls lately."
    assert status["verdict"]["advice"] is None
    assert status["verdict"]["slots"] == about_slots(status["flow"])


def test_the_diagnosis_is_of_the_last_hour(here: InMemoryProxy) -> None:
    """It says over how long it judges."""
    _an_hour(here)

    diagnosis = here.status.diagnosis()

    assert diagnosis.calls == 1000
    assert diagnosis.period_s == 3600


@pytest.mark.parametrize(
    ("settings", "blocked_by", "setting"),
    [
        ({"slots": 1}, BlockedBy.SLOT, "SLOTS"),
        ({"budget": 64}, BlockedBy.BUDGET, "BUDGET"),
        ({"max_wait_ms": 20.0}, BlockedBy.NOTHING, "MAX_WAIT_TIME=0"),
        ({"max_batch_calls": 1}, BlockedBy.NOTHING, "MAX_BATCH_SIZE"),
    ],
)
def test_the_diagnosis_knows_the_settings_in_force(
    settings: dict[str, Any], blocked_by: BlockedBy, setting: str
) -> None:
    """What the operator chose is what is advised to change."""
    with wired(**settings) as here:
        here.recorder.blocked(blocked_by)
        _an_hour(here, full=1000)

        advice = here.status.diagnosis().advice

        assert advice is not None
        assert advice.setting == setting


def test_the_diagnosis_knows_how_many_bytes_make_a_batch_full() -> None:
    """Long texts fill one before there are too many."""
    with wired(max_batch_bytes=1000) as here:
        filled = {"batches": 100, "requests": 100, "full": 100}
        _an_hour(here, **filled, items=1000, size=90_000)

        advice = here.status.diagnosis().advice

        assert advice is not None
        assert advice.setting == "MAX_BATCH_BYTES"


@pytest.mark.parametrize(
    ("takes", "setting"),
    [
        (None, "MAX_BATCH_INPUTS"),
        (64, "MAX_BATCH_INPUTS"),
        (32, "a higher limit of the inference server (--max-client-batch-size)"),
    ],
)
def test_the_diagnosis_knows_what_the_upstream_takes(
    here: InMemoryProxy, takes: int | None, setting: str
) -> None:
    """More than that would be refused."""
    here.inference_server.discovery.info = ServerInfo(max_batch_inputs=takes)
    _an_hour(here, full=100, batches=100, requests=100)

    advice = here.status.diagnosis().advice

    assert advice is not None
    assert advice.setting == setting


def test_a_lane_that_is_refused_is_named_with_its_model(here: InMemoryProxy) -> None:
    """But not with what the server said, which may quote a call."""
    here.call("mine", key="secret", model="nope")
    here.upstream.open[0].refuse(503, b"no room for mine")
    here.clock.advance(0.01)

    [refused] = here.status.document()["refused"]

    assert refused.pop("for_s") == pytest.approx(0.01)
    assert refused == {
        "route": "/embed",
        "model": "nope",
        "has_key": True,
        "why": "answered with 503",
    }


def test_a_lane_that_is_out_is_named_as_well(here: InMemoryProxy) -> None:
    """All that it sent has failed, whatever the status."""
    here.call("in flight", truncate=True)
    for text in ("a", "b", "c"):
        here.call(text)
    here.upstream.open[0].answer()
    while here.upstream.open:
        sent = here.upstream.open[0]
        sent.refuse(500, b"no " + sent.request.body)

    [refused] = here.status.document()["refused"]

    assert (refused["route"], refused["model"]) == ("/embed", "")
    assert refused["why"] == "answered with 500"


def test_what_is_refused_for_all_comes_first(here: InMemoryProxy) -> None:
    """It is no trouble of one lane."""
    here.call("a")
    here.upstream.open[0].refuse(503, b"no")
    here.call("b", truncate=True)
    here.upstream.open[0].fail(CannotConnect("nobody there"))

    refused = here.status.document()["refused"]

    assert [each["route"] for each in refused] == ["", "/embed"]
    assert refused[0]["why"] == "nobody there"


def test_a_lane_that_is_answered_again_is_not_listed(here: InMemoryProxy) -> None:
    """Nor one that has not been refused for a while."""
    here.call("a")
    here.upstream.open[0].refuse(503, b"no")
    here.clock.advance(0.05)

    here.answer_all()

    assert here.status.document()["refused"] == []
    assert here.status.document()["flow"]["lanes_refused"] == 0


def test_a_refused_lane_beside_good_ones_is_not_what_keeps_batches(
    here: InMemoryProxy,
) -> None:
    """Only while nothing is answered it is the server that keeps them."""
    here.call("a")
    here.upstream.open[0].refuse(503, b"no")
    before = here.status.document()["kept_by"]
    here.call("b", truncate=True)
    here.upstream.open[0].answer()
    after = here.status.document()["kept_by"]

    assert (before, after) == ("upstream", "nothing")
