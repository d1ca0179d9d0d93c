"""
How the settings are written down: in `.env.example` and in the README.

Both are made of the Settings class by `make settings`, and tested against it.
"""

from pathlib import Path
from typing import Any

import attrs

from abproxy.settings.settings import Settings, default_of, explain
from abproxy.settings.sources import variable

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / ".env.example"
README = ROOT / "README.md"

INTRODUCTION = """\
# The settings of abproxy. Copy this file to .env and change what you like.
# The command line wins over the environment, which wins over .env.
# An empty value means the default.
"""
TABLE_HEAD = "| Setting | Default | Unit | Meaning |\n| --- | --- | --- | --- |\n"


def example() -> str:
    """Write `.env.example`."""
    settings = [
        f"\n# {explain(each)}\n{variable(each.metadata['option'])}={_value(each)}\n"
        for each in attrs.fields(Settings)
    ]
    return INTRODUCTION + "".join(settings)


def table() -> str:
    """Write the README's table of settings."""
    return TABLE_HEAD + "".join(
        _row(
            f"`{variable(each.metadata['option'])}`",
            default_of(each),
            each.metadata["unit"],
            each.metadata["meaning"],
        )
        for each in attrs.fields(Settings)
    )


def table_in(text: str) -> str:
    """Find the table of settings in *text*."""
    return TABLE_HEAD + text.partition(TABLE_HEAD)[2].partition("\n\n")[0] + "\n"


def _value(setting: "attrs.Attribute[Any]") -> str:
    return default_of(setting).replace("none", "")


def _row(*cells: str) -> str:
    return "|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|\n"


if __name__ == "__main__":
    EXAMPLE.write_text(example(), encoding="utf-8")
    readme = README.read_text(encoding="utf-8")
    README.write_text(readme.replace(table_in(readme), table()), encoding="utf-8")
