"""Where results are published: `docs/attack.json`, and the table made of it."""

from collections.abc import Iterable, Mapping
from typing import Any

from bench.attack.found import Row
from bench.wire.contestants import ROOT
from bench.wire.pages import read, replaced, written

__all__ = ["JSON", "MAKER", "PAGE", "figures", "publish", "read", "table"]

JSON = ROOT / "docs/attack.json"
PAGE = ROOT / "docs/reliability.md"
MAKER = "make attack args=--write"

HEAD = ("Attack", "Tried", "Failed", "Measured")


def figures(parts: Mapping[str, Iterable[Row]], about: Mapping[str, Any]) -> Any:
    """Write what was found as plain values."""
    rows = {
        part: [
            {
                "what": row.what,
                "tried": row.tried,
                "failed": len(row.failures),
                "measured": row.measured,
            }
            for row in found
        ]
        for part, found in parts.items()
    }
    return {**about, "parts": rows}


def table(found: Any) -> str:
    """Write the table."""
    lines = [HEAD, ["---"] * len(HEAD)]
    for rows in found["parts"].values():
        for row in rows:
            told = "; ".join(row["measured"])
            lines.append([row["what"], f"{row['tried']:,}", f"{row['failed']:,}", told])
    machine = found["machine"]
    where = (
        f"Run on {machine['date']} for {found['took_s'] / 60:.0f} minutes: "
        f"abproxy {machine['packages']['abproxy']}, {machine['cpu']}, "
        f"{machine['cores']} cores, Python {machine['python']}, "
        f"Twisted {machine['packages']['Twisted']}; seed {found['seed']}; "
        f"load average of the machine before: {machine['busy_before']}."
    )
    cells = ("|".join(f" {cell} " if cell else " " for cell in line) for line in lines)
    return "\n".join([where, "", *(f"|{line}|" for line in cells)])


def publish(found: Any) -> None:
    """Write the JSON and the table."""
    JSON.write_text(written(found), encoding="utf-8")
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(replaced(text, table(found), MAKER), encoding="utf-8")
