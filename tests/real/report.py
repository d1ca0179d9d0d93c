"""What was found, as `docs/tested.json` and as a table in docs/compatibility.md."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import asdict

from real.rounds import Found

ROOT = Path(__file__).parents[2]
TESTED = ROOT / "docs/tested.json"
PAGE = ROOT / "docs/compatibility.md"
BEGIN = "<!-- made by `make test/real`: begin -->\n"
END = "<!-- made by `make test/real`: end -->\n"
HEAD = (
    "| Server | What was run | Way | Calls | refused directly "
    "| went as | differ | Numbers differ by |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- |\n"
)


def way_found(name: str, found: Found, batches: Mapping[str, int]) -> dict[str, Any]:
    """Put what was found on a way into plain values."""
    failures = [
        {**asdict(found.failures[kind]), "count": count}
        for kind, count in sorted(found.counts.items())
    ]
    return {
        "way": name,
        "calls": found.calls,
        "refused": found.refused,
        "failed": found.failed,
        "greatest_difference": float(f"{found.closeness.greatest:.1e}"),
        **batches,
        "failures": failures,
    }


def merged(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Keep of *earlier* what was not run now."""
    servers = {**earlier.get("servers", {}), **now["servers"]}
    return {**earlier, **now, "servers": dict(sorted(servers.items()))}


def read() -> dict[str, Any]:
    """Read what was found before, if anything."""
    if not TESTED.exists():
        return {}
    found: dict[str, Any] = json.loads(TESTED.read_text(encoding="utf-8"))
    return found


def write_file(tested: Mapping[str, Any]) -> None:
    """Write the file."""
    text = json.dumps(tested, indent=1, ensure_ascii=False) + "\n"
    TESTED.write_text(text, encoding="utf-8")


def write(tested: Mapping[str, Any]) -> None:
    """Write the file, and the table on the page."""
    write_file(tested)
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    page = f"{before}{BEGIN}{section(tested)}{END}{after}"
    PAGE.write_text(page, encoding="utf-8")


def section_in(page: str) -> str:
    """Find what stands between the marks on the *page*."""
    return page.partition(BEGIN)[2].partition(END)[0]


def section(tested: Mapping[str, Any]) -> str:
    """Write what stands between the marks."""
    rows = [
        row for name, each in tested["servers"].items() for row in _rows(name, each)
    ]
    clients = [_clients(name, each) for name, each in tested["servers"].items()]
    failures = [
        line for name, each in tested["servers"].items() for line in _failed(name, each)
    ]
    return (
        f"\n{HEAD}{''.join(rows)}\n{_below(tested)}\n"
        "| Server | Versions | Run on | Clients, uses on each way: differ "
        "| One of two killed under load: calls lost |\n"
        f"| --- | --- | --- | --- | --- |\n{''.join(clients)}\n"
        f"{_differing(failures)}\n"
    )


def _rows(name: str, server: Mapping[str, Any]) -> Sequence[str]:
    return [
        _row(
            name if at == 0 else "",
            server["what"] if at == 0 else "",
            way["way"],
            f"{way['calls']:,}",
            f"{way['refused']:,}",
            f"{way['batched_calls']:,} in {way['batches']:,}" if way["batches"] else "",
            f"**{way['failed']:,}**" if way["failed"] else "0",
            f"{way['greatest_difference']:.0e}",
        )
        for at, way in enumerate(server["ways"])
    ]


def _below(tested: Mapping[str, Any]) -> str:
    programs = ", ".join(f"{name} {each}" for name, each in tested["programs"].items())
    return (
        "*Refused directly* counts calls that the server itself answers with 400 or "
        "more, *went as* calls and the batches they were sent in, *differ* calls with "
        "another answer than directly.\n"
        f"With {programs} and `{tested['settings']}`.\n"
        f"Numbers of a row that differ by less than {tested['tolerance']:.0e} "
        "count as equal, because the last digits depend on the texts that a model "
        "computes together.\n"
    )


def _clients(name: str, server: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{key} {value}" for key, value in server["versions"].items())
    uses = ", ".join(
        f"{client} {found['uses']}: {len(found['failures'])}"
        for client, found in server["clients"].items()
    )
    return _row(name, versions, server["date"], uses, _killed(server))


def _killed(server: Mapping[str, Any]) -> str:
    killed = server.get("killed")
    if killed is None:
        return "not run"
    lost = f"**{killed['lost']:,}**" if killed["lost"] else "0"
    return f"{killed['times']} times: {lost} of {killed['calls']:,}"


def _failed(name: str, server: Mapping[str, Any]) -> Sequence[str]:
    first: dict[tuple[str, str], str] = {}
    for way in server["ways"]:
        for each in way["failures"]:
            key = (each["call"], each["differences"][0])
            first.setdefault(key, each["round"])
    return [
        _row(name, call, where, _cell(difference))
        for (call, difference), where in first.items()
    ]


def _differing(lines: Sequence[str]) -> str:
    if not lines:
        return "No call was answered otherwise than directly.\n"
    return (
        "What differs, each kind once (the requests and both answers are in "
        "[tested.json](tested.json)):\n\n"
        "| Server | Call | First when asked | Directly, not through abproxy |\n"
        f"| --- | --- | --- | --- |\n{''.join(lines)}"
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def _row(*cells: str) -> str:
    return "|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|\n"
