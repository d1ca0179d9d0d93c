"""
The command `twistd abproxy`: its options, and one line of error if one is wrong.

Twisted imports this module before a reactor is installed, and importing Klein
would install one: so the proxy itself is imported when the service is made.
"""

import atexit
import os
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import attrs
from twisted.application.service import IService
from twisted.python import usage

from abproxy import __version__
from abproxy.errors import SettingsError
from abproxy.http.openssl import import_reactor
from abproxy.settings.settings import REPLACED, Settings, explain, settings_from
from abproxy.settings.sources import (
    DEFAULT_ENV_FILE,
    read_defaults,
    read_env_file,
    share,
    variable,
)
from abproxy_model.errors import ModelUnavailable
from twisted import __version__ as twisted_version

__all__ = ["Options", "makeService", "read_settings"]

ENV_FILE = "env-file"

INDENT = " " * 6


def _parameters() -> list[list[str | None]]:
    rows: list[list[str | None]] = [
        [each.metadata["option"], None, None, explain(each)]
        for each in attrs.fields(Settings)
        if each.default is not False
    ]
    rows += [[option, None, None, "see --fast-paths"] for option in REPLACED]
    rows.append(
        [ENV_FILE, None, None, "file with settings [default: .env, if it exists]"]
    )
    return rows


def _flags() -> list[list[str | None]]:
    fields = attrs.fields(Settings)
    return [
        [each.metadata["option"], None, explain(each)]
        for each in fields
        if each.default is False
    ]


class Options(usage.Options):
    """The options of the command line."""

    synopsis = "[options]"
    longdesc = (
        "An auto-batching proxy for embedding servers: calls that arrive at the same "
        "time are sent as one request. Each option but --env-file can also be set in "
        "the environment or in a .env file, by its name in upper case with "
        f"underscores, like {variable('max-wait-time')}. The command line wins over "
        "the environment, which wins over the file."
    )
    optParameters: ClassVar[list[list[str | None]]] = _parameters()
    optFlags: ClassVar[list[list[str | None]]] = _flags()

    def parseOptions(self, options: Any = None) -> None:  # noqa: N802
        """Parse the command line; print one line on a mistake, not the whole help."""
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            raise SystemExit(f"abproxy: {error}") from None

    def opt_version(self) -> None:
        """Print the version of abproxy and exit."""
        print(f"abproxy {__version__}, Twisted {twisted_version}")  # noqa: T201
        raise SystemExit(0)

    def opt_help(self) -> None:
        """Print this help and exit."""
        try:
            print(self, flush=True)  # noqa: T201
        except BrokenPipeError:  # as with `| head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0)

    def getUsage(self, width: int | None = None) -> str:  # noqa: N802
        """Return the help, by topic as in the documentation."""
        width = width or int(os.environ.get("COLUMNS", "80"))
        lines = [*textwrap.wrap(self.longdesc, width), ""]
        for topic, options in self._by_topic():
            lines += [f"{topic}:", *self._explain(options, width), ""]
        return "\n".join(lines)

    def _by_topic(self) -> Iterator[tuple[str, list[str]]]:
        """Yield the names of options by topic, those without one last."""
        left = [option.rstrip("=") for option in self.longOpt]
        for topic in reversed(Settings.__bases__):
            found = [each.metadata["option"] for each in attrs.fields(topic)]
            yield str(topic.__doc__).rstrip("."), found
            left = [option for option in left if option not in found]
        yield "Other options", left

    def _explain(self, options: Iterable[str], width: int) -> Iterator[str]:
        for option in options:
            yield f"  --{option}" + ("=" if f"{option}=" in self.longOpt else "")
            about = textwrap.wrap(self.docs[option].strip(), width - len(INDENT))
            yield from (INDENT + line for line in about)

    def opt_no_embedded(self) -> None:
        """Start no model, even if the environment or the .env file asks for one."""
        self["embedded"] = "false"

    def parseArgs(self, *rest: str) -> None:
        """Refuse arguments that are not options."""
        if rest:
            raise usage.UsageError(f"unexpected argument {rest[0]!r}")


def read_settings(options: Options, environ: Mapping[str, str]) -> Settings:
    """
    Read all settings.

    Raises:
        SettingsError: one cannot be used.
    """
    env_file = read_defaults(environ) | read_env_file(options[ENV_FILE])
    return settings_from(options, environ, env_file)


def _owner(twistd: Mapping[str, Any]) -> tuple[int, int]:
    """Return the user and group that `twistd` changes to; -1 for none."""
    uid, gid = twistd.get("uid"), twistd.get("gid")
    return -1 if uid is None else uid, -1 if gid is None else gid


def _variables() -> frozenset[str]:
    """Return the names of all settings in the environment."""
    options = (each.metadata["option"] for each in attrs.fields(Settings))
    return frozenset(map(variable, options))


def _end_with(code: int) -> None:
    from abproxy.telemetry.lines import flush_all

    def leave() -> None:
        flush_all()
        os._exit(code)

    # twistd exits with 0 whatever happened.
    atexit.register(leave)


def _wiring(settings: Settings) -> Callable[..., Any]:
    """Return what makes the service: the proxy, or the supervisor of its workers."""
    if settings.workers > 1:
        from abproxy.workers.wiring import wire_supervisor

        return wire_supervisor
    from abproxy.wiring import wire

    return wire


def makeService(options: Options) -> IService:
    """
    Make the service that twistd runs, or exit with one line of error.

    Raises:
        SystemExit: a setting cannot be used.
    """
    read = partial(read_settings, options, os.environ)
    try:
        settings = read()
        reactor = import_reactor(
            filter(None, (settings.port, settings.operations_port))
        )

        from abproxy.service.lifetime import ProcessContext
        from abproxy.service.notify import make_notify
        from abproxy.telemetry.logs import observer, set_threshold, threshold
        from abproxy.tuning import (
            free_leftovers,
            tune_process,
            use_monotonic_clock,
        )

        use_monotonic_clock(reactor)
        share(read_env_file(options[ENV_FILE]), os.environ, but=_variables())
        env_file = Path(options[ENV_FILE] or DEFAULT_ENV_FILE)
        if env_file.exists():
            # A reload has to fail if the file has gone, and to find it though twistd
            # has changed its working directory.
            options[ENV_FILE] = str(env_file.absolute())
        enough = threshold(settings.log_level)
        process = ProcessContext(
            end_with=_end_with,
            notify=make_notify(os.environ),
            tune=partial(
                tune_process,
                reactor,
                skips_log_context="poll" in settings.fast_paths,
                # They are for calls, and a supervisor answers none.
                has_huge_pages=settings.workers == 1,
            ),
            log_observer=observer(
                getattr(options, "parent", None) or {},
                as_json=settings.log_format == "json",
                enough=enough,
                when_running=reactor.callWhenRunning,
            ),
            owner=_owner(getattr(options, "parent", None) or {}),
            set_log_level=partial(set_threshold, enough),
        )
        free_leftovers()
        service: IService = _wiring(settings)(settings, reactor, read, process)
    except (SettingsError, ModelUnavailable) as error:
        raise SystemExit(f"abproxy: {error}") from None
    return service
