"""The manifests for Kubernetes are valid, and agree with the proxy they start."""

import os
import re
import shutil
from functools import cache
from pathlib import Path
from threading import Thread
from typing import Any

import attrs
import pytest
from ruamel.yaml import YAML

from abproxy.service.proxy import LAST_S
from abproxy.settings.settings import Settings, settings_from
from abproxy.settings.sources import variable
from abproxy.telemetry.setup import LAST_SPANS_S
from abproxy.upstream.health import TIMEOUT_S
from deploy import crds
from deploy.balancing import Proxy, ask, free_port, until, upstream
from deploy.deployed import BIN, DEPLOY, ROOT, read_yaml, run, unknown_in

FOLDER = DEPLOY / "kubernetes"
OVERLAYS = ("plain", "many", "sidecar", "gateway", "from-zero")
NAME = "app.kubernetes.io/name"
MODEL_STARTS_S = 120.0
"""How long a model server takes from nothing, at most: a pod, and a small model."""


def _renders() -> bool:
    """Say whether there is a kubectl that knows components, which came with 1.21."""
    if shutil.which("kubectl") is None:
        return False
    told = run("kubectl", "version", "--client").stdout
    version = re.search(r"v1\.(\d+)", told)
    return version is not None and int(version[1]) > 20


pytestmark = pytest.mark.skipif(not _renders(), reason="no kubectl 1.21 or newer here")


@cache
def _rendered(folder: Path) -> str:
    made = run("kubectl", "kustomize", folder)
    assert made.returncode == 0, made.stderr
    return made.stdout


def resources(folder: Path) -> list[dict[str, Any]]:
    """Return what `kubectl apply --kustomize` would send."""
    return list(YAML(typ="safe").load_all(_rendered(folder)))


def overlay(name: str) -> list[dict[str, Any]]:
    """Return the resources of an overlay."""
    return resources(FOLDER / "overlays" / name)


def find(among: list[dict[str, Any]], kind: str, name: str = "abproxy") -> Any:
    """Return the resource of a kind, by its name or the beginning of it."""
    [found] = [
        each
        for each in among
        if each["kind"] == kind and each["metadata"]["name"].startswith(name)
    ]
    return found


def pod(among: list[dict[str, Any]], name: str = "abproxy") -> Any:
    """Return how the pods of a Deployment are made."""
    return find(among, "Deployment", name)["spec"]["template"]["spec"]


def container(among: list[dict[str, Any]]) -> Any:
    """Return the container with the proxy."""
    [found] = pod(among)["containers"]
    return found


def environment(among: list[dict[str, Any]]) -> dict[str, str]:
    """Return what the proxy finds in its environment."""
    [source] = container(among)["envFrom"]
    config = find(among, "ConfigMap")
    assert source == {"configMapRef": {"name": config["metadata"]["name"]}}
    own = {each["name"]: each["value"] for each in container(among)["env"]}
    return {**config["data"], **own}


@pytest.fixture(params=OVERLAYS)
def every(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    """Give the resources of one overlay after the other."""
    return overlay(request.param)


@pytest.fixture
def plain() -> list[dict[str, Any]]:
    """Give the resources without anything special."""
    return overlay("plain")


@pytest.fixture
def with_keys(tmp_path: Path) -> list[dict[str, Any]]:
    """Give the resources of an overlay of one's own, with keys."""
    base, keys = (
        os.path.relpath(FOLDER / each, tmp_path)
        for each in (
            "base",
            "components/keys",
        )
    )
    (tmp_path / "kustomization.yaml").write_text(
        f"resources: [{base}]\ncomponents: [{keys}]\n"
    )
    return resources(tmp_path)


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_manifests_are_valid(name: str, tmp_path: Path) -> None:
    """They follow the schema of Kubernetes, and nothing in them is unknown to it."""
    native = [
        each
        for each in overlay(name)
        if (each["apiVersion"], each["kind"]) not in crds.KINDS
    ]
    file = tmp_path / "all.yaml"
    with file.open("w") as stream:
        YAML(typ="safe").dump_all(native, stream)

    checked = run(BIN / "kubernetes-validate", "--strict", file)

    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert checked.stdout.count(" passed for resource ") == len(native)


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("gateway", {"HTTPRoute", "BackendTrafficPolicy"}),
        ("from-zero", {"ScaledObject", "ServiceMonitor"}),
    ],
)
def test_what_others_define_is_valid(name: str, kinds: set[str]) -> None:
    """Gateway API, Envoy Gateway, KEDA and the Prometheus operator."""
    foreign = [
        each
        for each in overlay(name)
        if (each["apiVersion"], each["kind"]) in crds.KINDS
    ]

    for each in foreign:
        crds.check(each)
    assert {each["kind"] for each in foreign} == kinds


@pytest.mark.parametrize(
    ("field", "value"),
    [("interval", "1 s"), ("unhealthyThreshold", 0), ("pathh", "/")],
)
def test_a_mistake_in_what_others_define_is_found(field: str, value: object) -> None:
    """What this relies on is not blind."""
    policy = find(overlay("gateway"), "BackendTrafficPolicy")
    policy["spec"]["healthCheck"]["active"][field] = value

    with pytest.raises(crds.ValidationError):
        crds.check(policy)


def test_every_selector_finds_the_pods_of_the_proxy(
    every: list[dict[str, Any]],
) -> None:
    """An empty one would find all pods of the namespace."""
    template = find(every, "Deployment")["spec"]["template"]
    labels = template["metadata"]["labels"].items()
    selectors = [
        find(every, "Deployment")["spec"]["selector"]["matchLabels"],
        find(every, "Service")["spec"]["selector"],
        find(every, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        find(every, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ]

    assert all(each == {NAME: "abproxy"} for each in selectors)
    assert {NAME: "abproxy"}.items() <= labels


def test_the_service_leads_to_the_ports_of_the_proxy(
    every: list[dict[str, Any]],
) -> None:
    """By name, and these are those on which it listens."""
    ports = {each["name"]: each["containerPort"] for each in container(every)["ports"]}
    service = find(every, "Service")
    opened = [
        port["port"]
        for rule in find(every, "NetworkPolicy")["spec"]["ingress"]
        for port in rule["ports"]
    ]

    assert {each["targetPort"] for each in service["spec"]["ports"]} == set(ports)
    assert set(opened) == set(ports)
    assert environment(every)["PORT"] == str(ports["calls"])
    assert environment(every)["OPERATIONS_PORT"] == str(ports["operations"])


def test_the_image_has_the_version_of_the_package(every: list[dict[str, Any]]) -> None:
    """As its tag and as a label, so that an upgrade is a change."""
    [version] = re.findall(r'version="(.*)"', (ROOT / "setup.py").read_text())
    labels = find(every, "Deployment")["spec"]["template"]["metadata"]["labels"]

    assert container(every)["image"] == f"abproxy:{version}"
    assert labels["app.kubernetes.io/version"] == version


def test_settings_are_settings(every: list[dict[str, Any]]) -> None:
    """With values that the proxy understands; keys are no part of them."""
    known = {variable(each.metadata["option"]) for each in attrs.fields(Settings)}
    settings = environment(every)

    assert set(settings) <= known
    assert not [name for name in settings if name.endswith("KEY")]
    assert settings_from({}, settings, {}).drain_delay_s > 0


def test_a_pod_may_drain(every: list[dict[str, Any]]) -> None:
    """It is killed later than the proxy gives up by itself."""
    settings = settings_from({}, environment(every), {})
    needed_s = settings.drain_timeout_s + LAST_S + LAST_SPANS_S

    assert pod(every)["terminationGracePeriodSeconds"] > needed_s
    assert settings.drain_delay_s < settings.drain_timeout_s / 2
    assert "lifecycle" not in container(every)


def test_a_pod_has_no_rights(every: list[dict[str, Any]]) -> None:
    """Not root, nothing to write to, no capabilities and no token."""
    confined = container(every)["securityContext"]

    assert pod(every)["securityContext"]["runAsNonRoot"]
    assert pod(every)["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not pod(every)["automountServiceAccountToken"]
    assert confined["readOnlyRootFilesystem"]
    assert not confined["allowPrivilegeEscalation"]
    assert confined["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize(
    ("probe", "path"),
    [
        ("startupProbe", "/-/healthy"),
        ("livenessProbe", "/-/healthy"),
        ("readinessProbe", "/-/ready"),
    ],
)
def test_probes_ask_on_the_port_for_operations(
    plain: list[dict[str, Any]], probe: str, path: str
) -> None:
    """There they get in even if callers hold all connections."""
    asked = container(plain)[probe]["httpGet"]

    assert asked == {"path": path, "port": "operations"}


def test_a_slow_inference_server_is_no_dead_pod(plain: list[dict[str, Any]]) -> None:
    """Whoever asks for readiness waits longer than the proxy itself does."""
    assert container(plain)["readinessProbe"]["timeoutSeconds"] > TIMEOUT_S


def test_a_restart_of_the_inference_server_does_not_send_callers_away(
    plain: list[dict[str, Any]],
) -> None:
    """They are held for as long as patience lasts."""
    probe = container(plain)["readinessProbe"]

    away_s = probe["periodSeconds"] * (probe["failureThreshold"] - 1)
    assert away_s > Settings().connect_patience_s


def test_keys_are_files(with_keys: list[dict[str, Any]]) -> None:
    """Of a Secret, which is where the settings say, and readable for the proxy."""
    [mount] = container(with_keys)["volumeMounts"]
    [volume] = pod(with_keys)["volumes"]
    files = {value for name, value in environment(with_keys).items() if "_FILE" in name}

    assert mount["name"] == volume["name"]
    assert volume["secret"]["defaultMode"] == 0o440
    assert pod(with_keys)["securityContext"]["fsGroup"]
    assert files == {
        f"{mount['mountPath']}/{key}" for key in ("api-key", "inference-service-key")
    }


def test_a_sidecar_ends_after_the_proxy() -> None:
    """Which still has to answer; it is on the port where the proxy looks for it."""
    sidecar = overlay("sidecar")
    [inference] = pod(sidecar)["initContainers"]
    [port] = inference["ports"]

    assert inference["restartPolicy"] == "Always"
    url = environment(sidecar)["INFERENCE_SERVICE_URL"]
    assert url == f"http://127.0.0.1:{port['containerPort']}"
    assert f"--port={port['containerPort']}" in inference["args"]


def test_a_gateway_sees_each_pod() -> None:
    """It leads to a Service without an address, on the port for calls."""
    among = overlay("gateway")
    service = find(among, "Service")
    [rule] = find(among, "HTTPRoute")["spec"]["rules"]
    [backend] = rule["backendRefs"]
    [target] = find(among, "BackendTrafficPolicy")["spec"]["targetRefs"]

    assert service["spec"]["clusterIP"] == "None"
    ports = {each["name"]: each["port"] for each in service["spec"]["ports"]}
    assert backend == {"name": "abproxy", "port": ports["calls"]}
    assert target["name"] == find(among, "HTTPRoute")["metadata"]["name"]
    assert "replicas" not in find(among, "Deployment")["spec"]
    assert find(among, "HorizontalPodAutoscaler")["spec"]["minReplicas"] > 1


def test_a_gateway_waits_as_long_as_the_proxy_may_take() -> None:
    """And looks more often than the proxy stays after SIGTERM."""
    among = overlay("gateway")
    [rule] = find(among, "HTTPRoute")["spec"]["rules"]
    active = find(among, "BackendTrafficPolicy")["spec"]["healthCheck"]["active"]
    settings = settings_from({}, environment(among), {})
    worst_s = (
        settings.request_timeout_s
        + settings.call_timeout_s
        + settings.upstream_timeout_s
    )

    assert _seconds(rule["timeouts"]["request"]) > worst_s
    notices_s = _seconds(active["interval"]) * active["unhealthyThreshold"]
    assert notices_s < settings.drain_delay_s
    assert _seconds(active["timeout"]) > TIMEOUT_S


def _seconds(duration: str) -> float:
    return float(duration.removesuffix("s"))


# From zero


def test_what_scales_the_inference_server_is_counted() -> None:
    """Its queries are about figures that there are."""
    scaled = find(overlay("from-zero"), "ScaledObject", "inference")
    queries = [each["metadata"]["query"] for each in scaled["spec"]["triggers"]]

    assert any("abproxy_waiting_items" in query for query in queries)
    assert [name for query in queries for name in unknown_in(query)] == []
    inference = find(overlay("from-zero"), "Deployment", "inference")
    assert scaled["spec"]["scaleTargetRef"]["name"] == inference["metadata"]["name"]
    assert "replicas" not in inference["spec"]
    assert scaled["spec"]["minReplicaCount"] == 0


def test_calls_are_kept_until_the_inference_server_is_there(tmp_path: Path) -> None:
    """With the settings of the example: the first one waits, and is counted."""
    among = overlay("from-zero")
    patience_s = environment(among)["CONNECT_PATIENCE"]
    port = free_port()
    proxy = Proxy(
        folder=tmp_path / "proxy",
        upstream=f"http://127.0.0.1:{port}",
        options=[f"--connect-patience={patience_s}"],
    )
    answers: list[int] = []

    def call() -> None:
        answers.append(ask(proxy.port, body={"inputs": "first"})[0])

    proxy.start()
    caller = Thread(target=call)
    caller.start()
    try:
        until(lambda: b"\nabproxy_waiting_items 1.0\n" in _metrics(proxy))
        path = container(among)["readinessProbe"]["httpGet"]["path"]
        ready = ask(proxy.operations, path)[0]
        with upstream(tmp_path / "upstream", port=port):
            caller.join()
    finally:
        proxy.stop()

    assert (ready, answers) == (200, [200])
    assert float(patience_s) > MODEL_STARTS_S


def _metrics(proxy: Proxy) -> bytes:
    return ask(proxy.operations, "/metrics")[1]


def test_a_monitor_finds_the_service() -> None:
    """By label, and by the name of a port; the rules know the job by its name."""
    among = overlay("from-zero")
    service = find(among, "Service")
    monitor = find(among, "ServiceMonitor")["spec"]
    [endpoint] = monitor["endpoints"]

    labels = service["metadata"]["labels"]
    assert monitor["selector"]["matchLabels"].items() <= labels.items()
    assert endpoint["port"] in {each["name"] for each in service["spec"]["ports"]}
    assert endpoint["path"] == "/metrics"
    assert service["metadata"]["name"] == "abproxy"


def test_images_are_those_of_compose() -> None:
    """One version of the inference server for all examples."""
    [compose] = read_yaml("compose.yaml")
    image = compose["services"]["inference"]["image"]

    assert pod(overlay("from-zero"), "inference")["containers"][0]["image"] == image
    assert pod(overlay("many"), "inference")["containers"][0]["image"] == image
    assert pod(overlay("sidecar"))["initContainers"][0]["image"] == image


def test_each_of_many_servers_is_seen() -> None:
    """The Service is headless, and the port the one on which containers listen."""
    among = overlay("many")
    service = find(among, "Service", "inference")["spec"]
    [listening] = pod(among, "inference")["containers"][0]["ports"]

    told = environment(among)

    assert told["RESOLVE"] == "all"
    assert service["clusterIP"] == "None"
    assert told["INFERENCE_SERVICE_URL"].endswith(f":{listening['containerPort']}")


def test_a_server_that_leaves_is_there_until_its_address_is_gone() -> None:
    """A pod that ends is taken out of the name at once, which is noticed later."""
    among = overlay("many")
    [server] = pod(among, "inference")["containers"]
    *_, seconds = server["lifecycle"]["preStop"]["exec"]["command"]

    assert int(seconds) > float(environment(among)["RESOLVE_EVERY"])
    assert int(seconds) < pod(among, "inference")["terminationGracePeriodSeconds"]
