"""
What a feature costs: two abproxies that differ in nothing else, in turns.

What counts is the CPU time of a call, and its ratio between neighbours.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack

import attrs
from attrs import field, frozen

from abproxy.settings.settings import FAST_PATHS, Settings
from abproxy.settings.sources import variable
from bench.wire.bench import Bench, Found, say
from bench.wire.checker import check
from bench.wire.errors import CannotMeasure
from bench.wire.processes import Child
from bench.wire.rounds import measure, turns
from bench.wire.summary import ratio, spread
from bench.wire.workloads import Workload

__all__ = ["FEATURES", "Feature", "features"]


@frozen(kw_only=True)
class Side:
    """One of the two: its settings, and what is asked of it."""

    settings: Mapping[str, str] = field(factory=dict)
    """What is set; UPSTREAM as a value is the URL of the upstream."""

    workload: Workload = field(default=Workload(name="clients-64"))


@frozen(kw_only=True)
class Feature:
    """A question: how much more is the first than the second?"""

    name: str
    having: Side
    lacking: Side = Side()


def _setting(name: str, having: str, lacking: str) -> Feature:
    return Feature(
        name=f"`{name}={having}` instead of `{lacking}`",
        having=Side(settings={name: having}),
        lacking=Side(settings={name: lacking}),
    )


def _without(path: str) -> Feature:
    others = ",".join(name for name in FAST_PATHS if name != path)
    return Feature(
        name=f"`FAST_PATHS` without `{path}`",
        having=Side(settings={"FAST_PATHS": others}),
        lacking=Side(settings={"FAST_PATHS": "all"}),
    )


def _alone(name: str, having: str) -> Feature:
    return Feature(name=f"`{name}={having}`", having=Side(settings={name: having}))


def _lanes(count: int) -> Side:
    keys = [f"key-{number}" for number in range(count)]
    return Side(workload=Workload(name=f"lanes-{count}", keys=keys))


OPENAI = Workload(name="openai", is_openai=True)

FEATURES: Sequence[Feature] = (
    *(_without(path) for path in FAST_PATHS),
    _setting("PACKING", "false", "true"),
    Feature(
        name="`USAGE=exact` instead of `shared`, on /v1/embeddings",
        having=Side(settings={"USAGE": "exact"}, workload=OPENAI),
        lacking=Side(workload=OPENAI),
    ),
    _setting("DEDUPE", "true", "false"),
    Feature(
        name="rows that are remembered (`CACHE_BYTES`)",
        having=Side(settings={"CACHE_BYTES": "268435456"}),
    ),
    _alone("MAX_BATCH_SIZE", "1"),
    _alone("ACCESS_LOG", "/dev/null"),
    Feature(
        name="traces of all calls, sent to a collector",
        having=Side(settings={"OTEL_EXPORTER_OTLP_ENDPOINT": "UPSTREAM"}),
    ),
    _alone("MAX_WAITING_INPUTS_PER_CLIENT", "10000"),
    _alone("RATE_LIMIT", "10000000"),
    Feature(
        name="two keys in turn instead of one", having=_lanes(2), lacking=_lanes(1)
    ),
    Feature(name="a key with each call", having=_lanes(1)),
)


def features(bench: Bench, chosen: Sequence[Feature] = FEATURES) -> list[Found]:
    """Measure each pair; what this abproxy does not know is told as skipped."""
    known = {variable(each.metadata["option"]) for each in attrs.fields(Settings)}
    found = []
    for feature in chosen:
        unknown = sorted({*feature.having.settings, *feature.lacking.settings} - known)
        if unknown:
            told = {"skipped": f"this abproxy has no {', '.join(unknown)}"}
        else:
            told = _compared(bench, feature)
        found.append({"name": feature.name, **told})
        say(f"features: {feature.name}: {told.get('ratio', told)}")
    return found


def _compared(bench: Bench, feature: Feature) -> Found:
    """Have both up at the same time; a pair that does not work is told as such."""
    try:
        costs_us = _costs(bench, feature)
    except CannotMeasure as error:
        return {"skipped": str(error).splitlines()[0]}
    compared = ratio(costs_us["having"], costs_us["lacking"])
    return {
        "ratio": [round(value, 3) for value in attrs.astuple(compared)],
        "having_us": round(spread(costs_us["having"]).middle, 1),
        "lacking_us": round(spread(costs_us["lacking"]).middle, 1),
    }


def _costs(bench: Bench, feature: Feature) -> dict[str, list[float]]:
    sides = {"having": feature.having, "lacking": feature.lacking}
    costs_us: dict[str, list[float]] = {name: [] for name in sides}
    with ExitStack() as stack:
        upstream = stack.enter_context(bench.ground.upstream(384))
        proxies: dict[str, Child] = {}
        for name, side in sides.items():
            settings = {
                name: value.replace("UPSTREAM", upstream.url)
                for name, value in side.settings.items()
            }
            proxy = bench.ground.abproxy(upstream.url, settings)
            proxies[name] = stack.enter_context(proxy)
            check(proxies[name].url, side.workload)
        for order in turns([*sides], bench.rounds):
            for name in order:
                workload = sides[name].workload
                run = measure(proxies[name], workload, bench.seconds, bench.load)
                costs_us[name].append(run.cpu_us)
    return costs_us
