"""Find the text of a setting: in an option, the environment, or a `.env` file."""

from collections.abc import (
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    MutableMapping,
)
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

from attrs import frozen

from abproxy.errors import SettingsError

__all__ = [
    "DEFAULTS",
    "DEFAULT_ENV_FILE",
    "Sources",
    "find_typos",
    "read_defaults",
    "read_env_file",
    "share",
    "variable",
]

DEFAULT_ENV_FILE = ".env"

LIBRARIES = "OTEL_"
"""How variables begin that a library reads from the environment."""

DEFAULTS = "ABPROXY_DEFAULTS"
"""
The variable with the path of a file of other defaults, as images need.

If an image had its defaults in the environment, they would win over `.env`.
"""

MOST_LETTERS = 2
"""A name with more wrong letters than this is another name."""

LETTERS_FOR_ONE = 3
"""So many letters of a setting's name allow for one that is wrong, missing or more."""

OF_OTHERS = frozenset({"MODEL"})
"""Names close to a setting that Compose files often give to what a server loads."""


def variable(option: str) -> str:
    """Return the environment variable of an *option*."""
    return option.upper().replace("-", "_")


def share(
    env_file: Mapping[str, str],
    environ: MutableMapping[str, str],
    but: AbstractSet[str],
) -> None:
    """
    Put OpenTelemetry's own variables into *environ*, for its library.

    *But* the settings of ours: these are read again, and the environment wins.
    """
    for name, value in env_file.items():
        if name.startswith(LIBRARIES) and name not in but:
            environ.setdefault(name, value)


@frozen
class Sources:
    """The sources of settings; the first that has a value wins."""

    options: Mapping[str, Any]
    environ: Mapping[str, str]
    env_file: Mapping[str, str]

    def read(self, option: str, read: Callable[[str], Any]) -> Any:
        """Return the parsed value of *option*; None if no source has it."""
        name = variable(option)
        sources = (
            (f"--{option}", self.options.get(option)),
            (f"{name} in the environment", self.environ.get(name)),
            (f"{name} in the .env file", self.env_file.get(name)),
        )
        where, text = next((pair for pair in sources if pair[1]), ("", None))
        if text is None:
            return None
        try:
            return read(str(text))
        except ValueError as error:
            raise SettingsError(f"{where}: {error}") from error


def read_defaults(environ: Mapping[str, str]) -> dict[str, str]:
    """
    Return the defaults of this installation.

    Raises:
        SettingsError: their file cannot be read or understood.
    """
    path = environ.get(DEFAULTS)
    return read_env_file(path) if path else {}


def read_env_file(path: str | None) -> dict[str, str]:
    """
    Return the settings in *path*, or in `.env` here if there is one.

    Raises:
        SettingsError: the file cannot be read or understood.
    """
    file = Path(path or DEFAULT_ENV_FILE)
    try:
        # Some editors begin a file with a byte order mark.
        with file.open(encoding="utf-8-sig") as stream:
            # Only who has such a file has its parser in memory.
            from dotenv.parser import parse_stream  # noqa: PLC0415

            lines = list(parse_stream(stream))
    except (OSError, ValueError) as error:
        if path is None and isinstance(error, FileNotFoundError):
            return {}
        reason = getattr(error, "strerror", None) or error
        raise SettingsError(f"cannot read settings from {file}: {reason}") from error
    for line in lines:
        # A file that was truncated may end in half a name.
        if line.error or (line.key is not None and line.value is None):
            text = line.original.string
            blank = text[: len(text) - len(text.lstrip())].count("\n")
            where = f"{file}, line {line.original.line + blank}"
            raise SettingsError(f"{where}: not of the form NAME=value")
    return {line.key: line.value for line in lines if line.key and line.value}


def find_typos(
    names: Iterable[str], settings: Collection[str]
) -> Iterator[tuple[str, str]]:
    """Return *names* that are none of *settings*, each with the one it is close to."""
    for name in names:
        if name in settings or name in OF_OTHERS:
            continue
        distance, closest = min((_distance(name.upper(), s), s) for s in settings)
        if distance <= min(MOST_LETTERS, len(closest) // LETTERS_FOR_ONE):
            yield name, closest


def _distance(one: str, other: str) -> int:
    """Return how many letters are wrong, missing, too many, or swapped."""
    if abs(len(one) - len(other)) > MOST_LETTERS:
        return MOST_LETTERS + 1
    before: list[int] = []
    last = list(range(len(other) + 1))
    for at, letter in enumerate(one, 1):
        row = [at]
        for to, wanted in enumerate(other, 1):
            row.append(
                min(last[to] + 1, row[-1] + 1, last[to - 1] + (letter != wanted))
            )
            is_swapped = one[at - 2 : at] == wanted + other[to - 2 : to - 1]
            if at > 1 and to > 1 and is_swapped:
                row[to] = min(row[to], before[to - 2] + 1)
        before, last = last, row
    return last[-1]
