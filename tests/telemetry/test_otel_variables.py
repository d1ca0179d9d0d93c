"""OpenTelemetry's own variables mean what its specification says."""

from typing import Any

import pytest

from abproxy import __version__
from abproxy.errors import SettingsError
from abproxy.settings.settings import Settings
from abproxy.settings.sources import share
from abproxy.telemetry.setup import traces_endpoint
from abproxy.telemetry.tracing import Tracing, make_tracing

GENERAL, OWN = "http://all:4318", "http://traces:4318/custom"


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the variables of this machine out."""
    for name in ("OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("general", "own", "environ", "endpoint"),
    [
        (None, None, {}, None),
        (GENERAL, None, {}, f"{GENERAL}/v1/traces"),
        (f"{GENERAL}/base", None, {}, f"{GENERAL}/base/v1/traces"),
        (None, OWN, {}, OWN),
        (GENERAL, OWN, {}, OWN),
        (GENERAL, OWN, {"OTEL_TRACES_EXPORTER": "none"}, None),
        (None, OWN, {"OTEL_TRACES_EXPORTER": "otlp"}, OWN),
        (None, OWN, {"OTEL_TRACES_EXPORTER": ""}, OWN),
        (None, OWN, {"OTEL_SDK_DISABLED": "true"}, None),
        (None, OWN, {"OTEL_SDK_DISABLED": "TRUE"}, None),
        (None, OWN, {"OTEL_SDK_DISABLED": "false"}, OWN),
        (None, OWN, {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, OWN),
        (None, None, {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, None),
        (
            None,
            OWN,
            {
                "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
            },
            OWN,
        ),
    ],
)
def test_traces_are_sent_where_the_variables_say(
    general: str | None, own: str | None, environ: dict[str, str], endpoint: str | None
) -> None:
    """That of traces wins, and gets no path of ours."""
    assert traces_endpoint(general, own, environ) == endpoint


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        (
            "OTEL_EXPORTER_OTLP_PROTOCOL",
            "grpc",
            "traces are sent as http/protobuf, usually to port 4318, not as grpc",
        ),
        (
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
            "http/json",
            "traces are sent as http/protobuf, usually to port 4318, not as http/json",
        ),
        (
            "OTEL_TRACES_EXPORTER",
            "zipkin",
            "traces are sent by otlp, or not at all (none), not by 'zipkin'",
        ),
    ],
)
def test_what_there_is_not_is_refused_in_one_line(
    name: str, value: str, why: str
) -> None:
    """Rather than to send traces that nothing understands."""
    with pytest.raises(SettingsError) as error:
        traces_endpoint(GENERAL, None, {name: value})

    assert str(error.value) == f"{name}: {why}"


def resource_of(**environ: str) -> dict[str, Any]:
    """Return what is said of this process."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environ.items():
            patch.setenv(name, value)
        tracing: Tracing = make_tracing("http://127.0.0.1:1")
    tracing.shut_down()
    return dict(tracing.provider.resource.attributes)


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        ({}, "abproxy"),
        ({"OTEL_SERVICE_NAME": "x"}, "x"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=y,team=z"}, "y"),
        (
            {"OTEL_RESOURCE_ATTRIBUTES": "service.name=y", "OTEL_SERVICE_NAME": "x"},
            "x",
        ),
    ],
)
def test_the_service_has_the_name_that_it_is_given(
    environ: dict[str, str], name: str
) -> None:
    """By the variable for it, or among the attributes."""
    assert resource_of(**environ)["service.name"] == name


def test_other_attributes_of_the_resource_are_kept() -> None:
    """And our version is added."""
    found = resource_of(OTEL_RESOURCE_ATTRIBUTES="team=z")

    assert found["team"] == "z"
    assert found["service.version"] == __version__


def test_variables_of_the_library_may_be_in_the_env_file() -> None:
    """The environment wins, and what is no variable of it stays where it is."""
    environ = {"OTEL_SERVICE_NAME": "set"}
    env_file = {
        "API_KEY": "secret",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://ours",
        "OTEL_SERVICE_NAME": "in the file",
        "OTEL_TRACES_SAMPLER": "always_off",
    }

    share(env_file, environ, but={"OTEL_EXPORTER_OTLP_ENDPOINT"})

    assert environ == {"OTEL_SERVICE_NAME": "set", "OTEL_TRACES_SAMPLER": "always_off"}


@pytest.mark.parametrize(
    ("settings", "has_tls"),
    [
        ({}, False),
        ({"port": "ssl:8443:privateKey=a"}, True),
        ({"tls_cert": "a", "tls_key": "b"}, True),
    ],
)
def test_a_trace_knows_whether_clients_speak_tls(
    settings: dict[str, str], *, has_tls: bool
) -> None:
    """`url.scheme` says so."""
    assert Settings(**settings).has_tls is has_tls
