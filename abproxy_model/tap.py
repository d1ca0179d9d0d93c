"""
The options of `twistd abproxy-model`, and how its parts are put together.

The only module that knows them all. What an operator can get wrong ends here:
one line on stderr, exit code 1, no traceback.
"""

# ruff: noqa: PLC0415 - numpy, Klein and the reactor wait for the options

import os
from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING, Any, NoReturn

from twisted.application.service import IService, MultiService
from twisted.python import usage

from abproxy_model.errors import ModelUnavailable
from abproxy_model.files import require
from abproxy_model.settings import Settings

if TYPE_CHECKING:
    from abproxy_model.model import Model

__all__ = ("Options", "makeService")

_MODELS = ("minilm", "static")
_MAX_PORT = 65_535


def _whole(name: str, at_least: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.isascii() or not text.isdigit() or int(text) < at_least:
            raise usage.UsageError(
                f"--{name}: {text!r} is not a whole number of at least {at_least}"
            )
        return int(text)

    return read


def _seconds(name: str) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not 0 <= value < float("inf"):
            raise usage.UsageError(f"--{name}: {text!r} is not a number of seconds")
        return value

    return read


def _boolean(name: str) -> Callable[[str], bool]:
    def read(text: str) -> bool:
        if text.lower() not in ("true", "false"):
            raise usage.UsageError(f"--{name}: {text!r} is neither true nor false")
        return text.lower() == "true"

    return read


def _port(text: str) -> str:
    if ":" in text or (text.isascii() and text.isdigit() and int(text) <= _MAX_PORT):
        return text
    raise usage.UsageError(f"--port: {text!r} is neither a port number nor an endpoint")


def _model(text: str) -> str:
    if text in _MODELS:
        return text
    raise usage.UsageError(f"--model: {text!r} is none of {', '.join(_MODELS)}")


class Options(usage.Options):
    """The command line."""

    synopsis = "[options]"
    longdesc = "A real embedding model behind the API of text-embeddings-inference."
    optParameters = [  # noqa: RUF012
        [
            "port",
            "p",
            "8080",
            "TCP port, or a Twisted endpoint if it has a colon",
            _port,
        ],
        ["ip", None, "127.0.0.1", "Address to listen on if --port is a number"],
        [
            "model",
            "m",
            "minilm",
            (
                "minilm (all-MiniLM-L6-v2, 384 dimensions) or static (a table of token"
                " vectors, 256 dimensions, starts at once)"
            ),
            _model,
        ],
        [
            "max-client-batch-size",
            None,
            32,
            "Inputs that one request may have",
            _whole("max-client-batch-size", 1),
        ],
        [
            "max-concurrent-requests",
            None,
            512,
            (
                "Inputs, of all requests, accepted and not yet answered; more are"
                " refused with 429"
            ),
            _whole("max-concurrent-requests", 1),
        ],
        [
            "auto-truncate",
            None,
            True,
            "true or false: cut inputs that are too long for the model, or refuse them",
            _boolean("auto-truncate"),
        ],
        ["api-key", None, None, "Key that callers must show as a bearer token"],
        [
            "drain-timeout",
            None,
            30.0,
            "Seconds to answer what was accepted before the process ends",
            _seconds("drain-timeout"),
        ],
        [
            "listen-fd",
            None,
            None,
            (
                "Number of an inherited file descriptor, a socket that listens already,"
                " to serve on instead of --port"
            ),
            _whole("listen-fd", 0),
        ],
    ]
    optFlags = [  # noqa: RUF012
        [
            "exit-with-stdin",
            None,
            (
                "Drain and exit when standard input closes, and ignore SIGINT and"
                " SIGHUP: for life as a child process"
            ),
        ],
    ]

    def parseOptions(self, options: Any = None) -> None:  # noqa: N802
        """Read the command line; a mistake is one line, not the whole help."""
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            _give_up(error)

    def parseArgs(self, *rest: str) -> None:
        """Refuse what is no option."""
        if rest:
            raise usage.UsageError(f"unexpected argument {rest[0]!r}")

    def settings(self) -> Settings:
        """The part that the server's rooms read."""
        return Settings(
            max_client_batch_size=self["max-client-batch-size"],
            max_concurrent_requests=self["max-concurrent-requests"],
            auto_truncate=self["auto-truncate"],
            api_key=self["api-key"],
            drain_timeout_s=self["drain-timeout"],
        )


def makeService(options: Options) -> IService:
    """Load the model, open the port, and make the service."""
    _require(options["model"])
    # numpy's threads wait for each other actively. On a few cores shared with
    # other processes that costs several times what it gains, so there is one,
    # unless the environment says otherwise. It is read when numpy is imported.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

    from twisted.internet import reactor

    from abproxy_model.life import Life

    service = MultiService()
    _server(reactor, options).setServiceParent(service)
    life = Life(reactor=reactor, with_stdin=bool(options["exit-with-stdin"]))
    life.setServiceParent(service)
    return service


def _server(reactor: Any, options: Options) -> Any:
    from functools import partial

    from twisted.internet.threads import deferToThreadPool
    from twisted.python.threadpool import ThreadPool

    from abproxy_model.app import Application
    from abproxy_model.door import Door
    from abproxy_model.inference import WorkQueue
    from abproxy_model.service import ModelService
    from abproxy_model.site import ModelSite

    settings = options.settings()
    began_at = perf_counter()
    model = _load(options["model"])
    load_s = perf_counter() - began_at
    threads = ThreadPool(minthreads=2, maxthreads=2, name="abproxy-model")
    run = partial(deferToThreadPool, reactor, threads)
    application = Application(
        model=model,
        settings=settings,
        inference=WorkQueue(run=run),
        tokenization=WorkQueue(run=run),
    )
    site = ModelSite(Door(application))
    return ModelService(
        reactor=reactor,
        port=_open(reactor, site, options),
        site=site,
        threads=threads,
        drain_timeout_s=settings.drain_timeout_s,
        ready=f"{model.model_id}, {model.dimensions} dimensions, in {load_s:.2f} s",
    )


def _require(name: str) -> None:
    try:
        require(name)
    except ModelUnavailable as error:
        _give_up(error)


def _load(name: str) -> "Model":
    try:
        from abproxy_model.model import load

        return load(name)
    except (ModelUnavailable, ImportError) as error:
        _give_up(error)


def _open(reactor: Any, site: Any, options: Options) -> Any:
    from abproxy_model.opening import CannotOpen, adopt, listen

    try:
        if options["listen-fd"] is not None:
            return adopt(reactor, site, options["listen-fd"])
        return listen(reactor, site, options["port"], options["ip"])
    except CannotOpen as error:
        _give_up(error)


def _give_up(problem: Exception) -> NoReturn:
    raise SystemExit(f"abproxy-model: {problem}") from None
