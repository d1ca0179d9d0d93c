"""Figures that are 0 are shown: what first appears as 1 has not grown for anybody."""

import pytest

from abproxy.errors import ProxyError, QueueFull, QueueTimeout, Unauthorized
from abproxy.telemetry.metrics import Metrics


@pytest.mark.parametrize(
    ("name", "label", "value"),
    [
        ("refusals", "reason", Unauthorized.reason),
        ("refusals", "reason", QueueFull.reason),
        ("failures", "reason", ProxyError.reason),
        ("failures", "reason", QueueTimeout.reason),
        ("put_backs", "cause", "full"),
        ("put_backs", "cause", "unreachable"),
        ("isolations", None, None),
    ],
)
def test_what_has_not_happened_is_shown_as_0(
    name: str, label: str | None, value: str | None
) -> None:
    """An alert on growth hears of the first one."""
    labels = {label: value} if label and value else {}

    shown = Metrics().registry.get_sample_value(f"abproxy_{name}_total", labels)

    assert shown == 0


@pytest.mark.parametrize(
    ("name", "reason"),
    [("refusals", ProxyError.reason), ("failures", Unauthorized.reason)],
)
def test_a_reason_is_shown_where_it_can_occur(name: str, reason: str) -> None:
    """What refuses a request does not fail it, and the other way round."""
    registry = Metrics().registry

    shown = registry.get_sample_value(f"abproxy_{name}_total", {"reason": reason})

    assert shown is None
