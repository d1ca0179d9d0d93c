"""`make compose/watch`: what watches finds what it watches."""

import re
from typing import Any

import pytest

from deploy.deployed import ROOT, read_yaml

WATCHERS = ("prometheus", "grafana", "jaeger")


@pytest.fixture
def services() -> Any:
    """Read the services of `compose.yaml`."""
    [compose] = read_yaml("compose.yaml")
    return compose["services"]


def test_prometheus_scrapes_the_proxies(services: Any) -> None:
    """Those of Compose, by their names and on their port."""
    [prometheus] = read_yaml("deploy/prometheus/prometheus.yml")

    [scrape] = prometheus["scrape_configs"]
    [proxies] = scrape["dns_sd_configs"]
    ports = {services[name]["environment"]["PORT"] for name in proxies["names"]}
    assert scrape["job_name"] == "abproxy"
    assert ports == {str(proxies["port"])}


def test_grafana_finds_figures_and_traces(services: Any) -> None:
    """And knows how often there are new figures."""
    [provided] = read_yaml("deploy/grafana/provisioning/datasources/watch.yml")
    [prometheus] = read_yaml("deploy/prometheus/prometheus.yml")

    figures, traces = provided["datasources"]
    assert figures["url"] == "http://prometheus:9090"
    assert traces["url"] == "http://jaeger:16686"
    interval = prometheus["global"]["scrape_interval"]
    assert figures["jsonData"]["timeInterval"] == interval
    assert set(WATCHERS) <= set(services)


def test_grafana_opens_with_the_dashboard(services: Any) -> None:
    """It is mounted where Grafana looks, and is its first page."""
    [provided] = read_yaml("deploy/grafana/provisioning/dashboards/abproxy.yml")
    grafana = services["grafana"]

    [provider] = provided["providers"]
    file = f"{provider['options']['path']}/abproxy.json"
    assert f"./deploy/grafana/abproxy.json:{file}:ro" in grafana["volumes"]
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == file


def test_traces_are_sent_to_jaeger(services: Any) -> None:
    """`make` says where to; without it there are none."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    environment = services["abproxy"]["environment"]

    assert "OTEL_EXPORTER_OTLP_ENDPOINT=http://jaeger:4318 $(COMPOSE)" in makefile
    told = environment["OTEL_EXPORTER_OTLP_ENDPOINT"]
    assert told == "${OTEL_EXPORTER_OTLP_ENDPOINT:-}"


def test_the_images_can_send_traces() -> None:
    """What that needs is installed in them."""
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")

    assert "pip install '.[redis,tracing]'" in dockerfile


@pytest.mark.parametrize("name", WATCHERS)
def test_watchers_come_only_if_they_are_wanted(services: Any, name: str) -> None:
    """In one version, healthy, reached from this machine only, and with no rights."""
    service = services[name]

    assert service["profiles"] == ["watch"]
    assert re.search(r":v?\d+\.\d+(\.\d+)?$", service["image"])
    assert service["healthcheck"]["test"][0] == "CMD"
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert service["cap_drop"] == ["ALL"]
    assert service["read_only"]


@pytest.mark.parametrize("name", WATCHERS)
def test_what_is_mounted_is_there(services: Any, name: str) -> None:
    """Docker would make an empty folder of a missing file."""
    mounted = [volume.split(":")[0] for volume in services[name].get("volumes", ())]

    ours = [ROOT / source for source in mounted if source.startswith("./")]
    assert [source for source in ours if not source.exists()] == []
