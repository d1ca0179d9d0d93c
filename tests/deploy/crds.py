"""
What our resources use of kinds that Kubernetes itself does not know.

Written by hand from the definitions of Envoy Gateway, the Gateway API, KEDA and the
Prometheus operator: a field that is not here is a mistake, or to be looked up there.
"""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, ValidationError, convert, field

__all__ = ["KINDS", "ValidationError", "check"]

Duration = Annotated[str, Meta(pattern=r"^([0-9]{1,5}(h|m|s|ms)){1,4}$")]
Positive = Annotated[int, Meta(ge=1)]
Whole = Annotated[int, Meta(ge=0)]
Quantity = Annotated[str, Meta(pattern=r"^\d+(\.\d+)?$")]
Name = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9-]*$")]


class _Strict(Struct, forbid_unknown_fields=True, rename="camel"):
    """Knows its fields, and takes no others."""


class _Metadata(_Strict):
    name: Name
    labels: dict[str, str] = field(default_factory=dict)


class _Named(_Strict):
    name: Name


# Gateway API


class _Path(_Strict):
    type: Literal["Exact", "PathPrefix", "RegularExpression"]
    value: Annotated[str, Meta(pattern="^/")]


class _Match(_Strict):
    path: _Path


class _RouteTimeouts(_Strict):
    request: Duration


class _BackendRef(_Strict):
    name: Name
    port: Positive


class _Rule(_Strict):
    matches: list[_Match]
    timeouts: _RouteTimeouts
    backend_refs: list[_BackendRef]


class _RouteSpec(_Strict):
    parent_refs: list[_Named]
    rules: list[_Rule]


# Envoy Gateway


class _TargetRef(_Strict):
    group: Literal["gateway.networking.k8s.io"]
    kind: Literal["Gateway", "HTTPRoute"]
    name: Name


class _LoadBalancer(_Strict):
    type: Literal["ConsistentHash", "LeastRequest", "Random", "RoundRobin"]


class _HttpCheck(_Strict):
    path: Annotated[str, Meta(pattern="^/")]
    expected_statuses: list[Annotated[int, Meta(ge=100, lt=600)]]


class _ActiveCheck(_Strict):
    type: Literal["HTTP"]
    timeout: Duration
    interval: Duration
    unhealthy_threshold: Positive
    healthy_threshold: Positive
    http: _HttpCheck


class _HealthCheck(_Strict):
    panic_threshold: Annotated[int, Meta(ge=0, le=100)]
    active: _ActiveCheck


Trigger = Literal[
    *("5xx", "gateway-error", "reset", "reset-before-request", "connect-failure"),
    *("retriable-4xx", "refused-stream", "retriable-status-codes"),
]


class _RetryOn(_Strict):
    triggers: list[Trigger]


class _Retry(_Strict):
    num_retries: Whole
    retry_on: _RetryOn


class _Tcp(_Strict):
    connect_timeout: Duration


class _Http(_Strict):
    connection_idle_timeout: Duration


class _Timeout(_Strict):
    tcp: _Tcp
    http: _Http


class _CircuitBreaker(_Strict):
    max_connections: Whole
    max_pending_requests: Whole
    max_parallel_requests: Whole
    max_parallel_retries: Whole


class _TrafficSpec(_Strict):
    target_refs: list[_TargetRef]
    load_balancer: _LoadBalancer
    health_check: _HealthCheck
    retry: _Retry
    timeout: _Timeout
    circuit_breaker: _CircuitBreaker


# KEDA


class _PrometheusQuery(_Strict):
    server_address: Annotated[str, Meta(pattern="^http://")]
    query: str
    threshold: Quantity
    activation_threshold: Quantity


class _Trigger(_Strict):
    type: Literal["prometheus"]
    name: Name
    metadata: _PrometheusQuery


class _ScaledSpec(_Strict):
    scale_target_ref: _Named
    min_replica_count: Whole
    max_replica_count: Positive
    polling_interval: Positive
    cooldown_period: Positive
    triggers: list[_Trigger]


# Prometheus operator


class _Selector(_Strict):
    match_labels: dict[str, str]


class _Endpoint(_Strict):
    port: Name
    path: Annotated[str, Meta(pattern="^/")]
    interval: Duration


class _MonitorSpec(_Strict):
    selector: _Selector
    endpoints: list[_Endpoint]


KINDS: dict[tuple[str, str], type] = {
    ("gateway.networking.k8s.io/v1", "HTTPRoute"): _RouteSpec,
    ("gateway.envoyproxy.io/v1alpha1", "BackendTrafficPolicy"): _TrafficSpec,
    ("keda.sh/v1alpha1", "ScaledObject"): _ScaledSpec,
    ("monitoring.coreos.com/v1", "ServiceMonitor"): _MonitorSpec,
}


def check(resource: dict[str, Any]) -> None:
    """
    Check a resource of one of these kinds.

    Raises:
        ValidationError: something in it is not as it should be.
    """
    about = dict(resource)
    kind = about.pop("apiVersion"), about.pop("kind")
    convert(about.pop("metadata"), _Metadata)
    convert(about.pop("spec"), KINDS[kind])
    assert not about
