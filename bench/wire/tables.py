"""Results as Markdown: made of the JSON alone, so that the two cannot differ."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from bench.wire.bench import Found
from bench.wire.contestants import ABPROXY, AIOHTTP, DIRECT
from bench.wire.summary import Spread, difference, ratio, spread

__all__ = ["full", "short"]

SHORT = ("clients-1", "clients-64", "clients-200")
NAMES = {DIRECT: "no proxy", AIOHTTP: "aiohttp", ABPROXY: "abproxy"}


def short(found: Found) -> str:
    """Write what the README shows."""
    speed = [each for each in found["speed"] if each["workload"]["name"] in SHORT]
    head = (
        "Clients",
        "",
        "calls/s",
        "p50",
        "p99",
        "CPU a call",
        "calls/s, times no proxy",
        "times aiohttp",
        "CPU, times aiohttp",
    )
    rows = [
        row
        for each in speed
        for row in _short_rows(each, f"{each['workload']['clients']:,}")
    ]
    cold = found.get("cold")
    if cold is None:
        return f"{_where(found)}\n\n{_table(head, rows)}"
    rows += _short_rows(cold, "1, with pauses")
    return f"{_where(found)}\n\n{_table(head, rows)}\n\n{_about_pauses(cold)}"


def _short_rows(one: Found, clients: str) -> Iterator[Sequence[str]]:
    for name, title in NAMES.items():
        figures = one["contestants"][name]
        yield (
            clients,
            title,
            f"{spread(figures['calls_per_s']).middle:,.0f}",
            _ms(spread(figures["p50_ms"]).middle),
            _ms(spread(figures["p99_ms"]).middle),
            "" if name == DIRECT else _us(spread(figures["cpu_us"]).middle),
            *_ratios(one, name),
        )


def _about_pauses(cold: Found) -> str:
    """Tell what a lone call pays, as no ratio does."""
    figures = cold["contestants"]
    more = difference(figures[ABPROXY]["p50_ms"], figures[DIRECT]["p50_ms"])
    return (
        f"With pauses: the client waits {cold['pause_ms']} ms before each call, and "
        f"the server takes {cold['upstream_ms']} ms for it.\n"
        f"There abproxy adds {_ms(more.middle)} to the median "
        f"({_ms(more.low)} to {_ms(more.high)}); {_own_time(cold['own'])}."
    )


def _own_time(own: Found) -> str:
    if "skipped" in own:
        return f"where they go was not measured: {own['skipped']}"
    return (
        f"its process itself has {_us(own['before_us'])} to do with a call before it "
        f"is sent on, and {_us(own['after_us'])} after its answer has come, "
        "as `strace` sees it"
    )


def full(found: Found) -> str:
    """Write everything there is, for the page about it."""
    parts = [_where(found)]
    for name, write in _PARTS.items():
        if found.get(name):
            parts.append(write(found[name]))
    return "\n\n".join(parts)


def _speed(speed: Sequence[Found]) -> str:
    head = (
        *("Workload", "", "calls/s", "lowest to highest", "p50", "p99", "CPU a call"),
        *("core busy", "memory", "calls/s, times no proxy", "times aiohttp"),
        "CPU, times aiohttp",
    )
    rows = [row for each in speed for row in _full_rows(each)]
    return f"### Speed\n\n{_table(head, rows)}"


def _cold(cold: Found) -> str:
    head = "", "p50", "lowest to highest", "p99", "CPU a call"
    rows = [_cold_row(cold, name) for name in NAMES]
    return (
        "### A lone call after a pause\n\n"
        f"{_table(head, rows)}\n\n{_about_pauses(cold)}"
    )


def _cold_row(cold: Found, name: str) -> Sequence[str]:
    figures = {key: spread(each) for key, each in cold["contestants"][name].items()}
    p50 = figures["p50_ms"]
    return (
        NAMES[name],
        _ms(p50.middle),
        f"{_ms(p50.low)} to {_ms(p50.high)}",
        _ms(figures["p99_ms"].middle),
        _us(figures["cpu_us"].middle),
    )


def _full_rows(one: Found) -> Iterator[Sequence[str]]:
    for name, title in NAMES.items():
        figures = {key: spread(each) for key, each in one["contestants"][name].items()}
        rate = figures["calls_per_s"]
        yield (
            _workload(one["workload"]),
            title,
            f"{rate.middle:,.0f}",
            f"{rate.low:,.0f} to {rate.high:,.0f}",
            _ms(figures["p50_ms"].middle),
            _ms(figures["p99_ms"].middle),
            _us(figures["cpu_us"].middle),
            f"{figures['busy'].middle:.0%}",
            f"{figures['resident_mb'].middle:.0f} MB",
            *_ratios(one, name),
        )


def _memory(memory: Found) -> str:
    head = "abproxy", "memory"
    rows = [
        ("after its start and one call", f"{memory['started_mb']:.1f} MB"),
        (
            f"with {memory['connections']:,} idle connections",
            f"{memory['idle_mb']:.1f} MB",
        ),
        ("for each of them", f"{memory['bytes_per_idle_connection']:,} bytes"),
        (
            f"with {memory['connections']:,} clients at work",
            f"{memory['loaded_mb']:.1f} MB",
        ),
    ]
    return f"### Memory\n\n{_table(head, rows)}"


def _syscalls(syscalls: Found) -> str:
    if "skipped" in syscalls:
        return f"### System calls\n\nNot counted: {syscalls['skipped']}."
    rows = [(f"`{name}`", f"{each:.2f}") for name, each in syscalls["each"].items()]
    rows.append(("all", f"{syscalls['all']:.2f}"))
    head = "System call", "for one call, at 64 clients"
    return f"### System calls\n\n{_table(head, rows)}"


def _features(features: Sequence[Found]) -> str:
    head = "What", "CPU a call", "without it", "ratio", "lowest to highest"
    rows = [_feature_row(each) for each in features]
    return f"### What features cost\n\n{_table(head, rows)}"


def _feature_row(one: Found) -> Sequence[str]:
    if "skipped" in one:
        return one["name"], f"not measured: {one['skipped']}", "", "", ""
    middle, low, high = one["ratio"]
    costs = _us(one["having_us"]), _us(one["lacking_us"])
    return one["name"], *costs, f"{middle:.2f}", f"{low:.2f} to {high:.2f}"


def _model(model: Found) -> str:
    title = "### The original workload: a real model"
    if "skipped" in model:
        return f"{title}\n\nNot measured: {model['skipped']}."
    head = f"{model['clients']} clients", "calls/s", "lowest to highest", "p50", "p99"
    rows = [_model_row(NAMES[name], model[name]) for name in (DIRECT, ABPROXY)]
    gained = ratio(
        _column(model[ABPROXY], "calls_per_s"), _column(model[DIRECT], "calls_per_s")
    )
    words = (
        f"With abproxy the model answers {_times(gained)} times as many calls "
        f"({len(model[ABPROXY])} rounds of {model['seconds']} s)."
    )
    return f"{title}\n\n{_table(head, rows)}\n\n{words}"


def _model_row(title: str, runs: Sequence[Mapping[str, float]]) -> Sequence[str]:
    rate = spread(_column(runs, "calls_per_s"))
    latencies = (spread(_column(runs, name)).middle for name in ("p50_ms", "p99_ms"))
    between = f"{rate.low:,.0f} to {rate.high:,.0f}"
    return title, f"{rate.middle:,.0f}", between, *map(_ms, latencies)


def _column(runs: Sequence[Mapping[str, float]], name: str) -> Sequence[float]:
    return [run[name] for run in runs]


_PARTS: Mapping[str, Callable[..., str]] = {
    "speed": _speed,
    "cold": _cold,
    "memory": _memory,
    "syscalls": _syscalls,
    "features": _features,
    "model": _model,
}


def _where(found: Found) -> str:
    machine = found["machine"]
    versions = ", ".join(f"{name} {each}" for name, each in machine["packages"].items())
    return (
        f"Measured on {machine['date']}: {machine['cpu']}, {machine['cores']} cores "
        f"({machine['placed']}), {machine['system']}, Python {machine['python']}, "
        f"{versions}; load from {machine['load']}, "
        f"medians of {found['rounds']} rounds of {found['seconds']} s.\n"
        f"The load average of the machine was {machine['busy_before']} before: "
        "the nearer to 0, the better.\n"
        "Other machines give other figures; it is the ratios that count."
    )


def _ratios(one: Found, name: str) -> Sequence[str]:
    """Compare with the others: the rate with both, the CPU time with the yardstick."""
    return (
        "" if name == DIRECT else _times(_compared(one, "calls_per_s", name, DIRECT)),
        "" if name == AIOHTTP else _times(_compared(one, "calls_per_s", name, AIOHTTP)),
        _times(_compared(one, "cpu_us", name, AIOHTTP)) if name == ABPROXY else "",
    )


def _compared(one: Found, figure: str, ours: str, theirs: str) -> Spread:
    contestants = one["contestants"]
    return ratio(contestants[ours][figure], contestants[theirs][figure])


def _workload(workload: Found) -> str:
    clients, inputs = workload["clients"], workload["inputs"]
    form = " base64" if workload["is_openai"] else ""
    return (
        f"{clients:,} client{_s(clients)}, {inputs} input{_s(inputs)} "
        f"of {workload['dimensions']}{form}"
    )


def _s(count: int) -> str:
    return "" if count == 1 else "s"


def _ms(figure: float) -> str:
    return f"{figure:.2f} ms" if figure < 10 else f"{figure:,.0f} ms"  # noqa: PLR2004


def _us(figure: float) -> str:
    return f"{figure:.1f} µs"


def _times(figure: Spread) -> str:
    return f"{figure.middle:.2f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "|" + "|".join(f" {cell} " if cell else " " for cell in line) + "|"
        for line in lines
    )
