"""The manifests for Kubernetes are valid, and agree with the proxy they start."""

import attrs
import pytest

from abproxy.service import LAST_S
from abproxy.settings.settings import Settings
from abproxy.settings.sources import variable
from abproxy.telemetry.setup import LAST_SPANS_S
from abproxy.upstream.health import TIMEOUT_S
from deploy.deployed import BIN, read_yaml, run

CONFIG, DEPLOYMENT, SERVICE = read_yaml("deploy/kubernetes/abproxy.yaml")
[MONITOR] = read_yaml("deploy/kubernetes/service-monitor.yaml")

POD = DEPLOYMENT["spec"]["template"]["spec"]
[CONTAINER] = POD["containers"]
ENVIRONMENT = {each["name"]: each["value"] for each in CONTAINER["env"]}
PORTS = {each["name"]: each["containerPort"] for each in CONTAINER["ports"]}


def test_the_manifests_are_valid() -> None:
    """They follow the schema of Kubernetes, and nothing in them is unknown to it."""
    checked = run(
        BIN / "kubernetes-validate", "--strict", "deploy/kubernetes/abproxy.yaml"
    )

    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert checked.stdout.count(" passed for resource ") == 3


def test_the_service_leads_to_the_pods() -> None:
    """By label, and to the ports on which the proxy listens."""
    labels = DEPLOYMENT["spec"]["template"]["metadata"]["labels"]

    assert SERVICE["spec"]["selector"].items() <= labels.items()
    assert DEPLOYMENT["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert {each["targetPort"] for each in SERVICE["spec"]["ports"]} == set(PORTS)
    assert ENVIRONMENT["PORT"] == str(PORTS["calls"])
    assert ENVIRONMENT["OPERATIONS_PORT"] == str(PORTS["operations"])
    assert ENVIRONMENT["IP"] == "0.0.0.0"


def test_the_monitor_finds_the_service() -> None:
    """By label, and by the name of a port; the rules know the job by its name."""
    [endpoint] = MONITOR["spec"]["endpoints"]

    labels = SERVICE["metadata"]["labels"]
    assert MONITOR["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert endpoint["port"] in {each["name"] for each in SERVICE["spec"]["ports"]}
    assert endpoint["path"] == "/metrics"
    assert SERVICE["metadata"]["name"] == "abproxy"


@pytest.mark.parametrize(
    ("probe", "path"),
    [
        ("startupProbe", "/-/healthy"),
        ("livenessProbe", "/-/healthy"),
        ("readinessProbe", "/-/ready"),
    ],
)
def test_probes_ask_on_the_port_for_operations(probe: str, path: str) -> None:
    """There they get in even if callers hold all connections."""
    asked = CONTAINER[probe]["httpGet"]

    assert asked == {"path": path, "port": "operations"}


def test_a_slow_inference_server_is_no_dead_pod() -> None:
    """Whoever asks for readiness waits longer than the proxy itself does."""
    assert CONTAINER["readinessProbe"]["timeoutSeconds"] > TIMEOUT_S


def test_a_restart_of_the_inference_server_does_not_send_callers_away() -> None:
    """They are held for as long as patience lasts."""
    probe = CONTAINER["readinessProbe"]

    away_s = probe["periodSeconds"] * (probe["failureThreshold"] - 1)
    assert away_s > Settings().connect_patience_s


def test_a_pod_may_drain() -> None:
    """It is killed later than the proxy gives up by itself."""
    [_, seconds] = CONTAINER["lifecycle"]["preStop"]["exec"]["command"]
    last_s = LAST_S + LAST_SPANS_S

    needed_s = float(seconds) + Settings().drain_timeout_s + last_s
    assert POD["terminationGracePeriodSeconds"] > needed_s


def test_a_pod_has_no_rights() -> None:
    """Not root, nothing to write to, no capabilities and no token."""
    confined = CONTAINER["securityContext"]

    assert POD["securityContext"]["runAsNonRoot"]
    assert POD["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not POD["automountServiceAccountToken"]
    assert confined["readOnlyRootFilesystem"]
    assert not confined["allowPrivilegeEscalation"]
    assert confined["capabilities"] == {"drop": ["ALL"]}


def test_settings_are_settings() -> None:
    """Keys are no part of them: they come from a Secret, if there is one."""
    known = {variable(each.metadata["option"]) for each in attrs.fields(Settings)}

    assert {*CONFIG["data"], *ENVIRONMENT} <= known
    assert [name for name in CONFIG["data"] if "KEY" in name] == []
    assert CONTAINER["envFrom"] == [
        {"configMapRef": {"name": "abproxy"}},
        {"secretRef": {"name": "abproxy", "optional": True}},
    ]
