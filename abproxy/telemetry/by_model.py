"""
The figures of several models: each has a recorder of its own.

At `/metrics` they are told apart by the label `model`.  What no model is asked for,
as a request without a key, is counted for the process, without that label.
"""

from collections.abc import Iterator

from attrs import define, field
from prometheus_client.core import Metric

from abproxy.errors import ProxyError
from abproxy.events import Observer, RequestInfo
from abproxy.telemetry.metrics import write_metrics
from abproxy.telemetry.recorder import Recorder

__all__ = ["ByModel"]

OF_PROCESS = "abproxy_connections_cut"
"""What is counted for the process alone."""

OF_BOTH = frozenset({"abproxy_refusals", "abproxy_failures"})
"""What is counted where it belongs: a key is asked for before the model is known."""


@define(kw_only=True, eq=False)
class ByModel(Observer):
    """Passes events on to the recorder of the model that they are about."""

    whole: Recorder
    """Records all requests."""

    recorders: dict[str, Recorder] = field(factory=dict)
    """By the name of the model."""

    def request_ended(self, request: RequestInfo, *, gone: bool) -> None:
        """Count a request for the process and for its model."""
        self.whole.request_ended(request, gone=gone)
        recorder = self.recorders.get(request.model)
        if recorder is not None:
            recorder.request_ended(request, gone=gone)

    def answered_with(self, error: ProxyError, model: str = "") -> None:
        """Count an answer of our own where it belongs."""
        self.recorders.get(model, self.whole).answered_with(error)

    def connection_cut(self, reason: str) -> None:
        """Count a connection that was cut."""
        self.whole.connection_cut(reason)

    def forget(self, recorder: Recorder) -> None:
        """Remove the figures of *recorder*."""
        for name, each in list(self.recorders.items()):
            if each is recorder:
                del self.recorders[name]

    def write(self, accepted: bytes) -> tuple[bytes, bytes]:
        """Return content type and body of all metrics, as an `Accept` line asks."""
        return write_metrics(self, accepted)

    def collect(self) -> Iterator[Metric]:
        """Yield everything, each family once."""
        families: dict[str, Metric] = {}
        for name, recorder in self.recorders.items():
            for family in recorder.metrics.registry.collect():
                if family.name != OF_PROCESS:
                    _add(families, family, name)
        of_models = families.keys() - OF_BOTH
        for family in self.whole.metrics.registry.collect():
            if family.name not in of_models:
                _add(families, family)
        yield from families.values()


def _add(families: dict[str, Metric], family: Metric, model: str = "") -> None:
    whole = families.get(family.name)
    if whole is None:
        whole = Metric(family.name, family.documentation, family.type)
        families[family.name] = whole
    more = {"model": model} if model else {}
    whole.samples += [
        sample._replace(labels={**more, **sample.labels}) for sample in family.samples
    ]
