"""
The options of `twistd abproxy-model`, and how its parts are put together.

Only this module knows them all. What an operator can get wrong ends here:
one line on stderr, exit code 1, no traceback.
"""

# ruff: noqa: PLC0415 - numpy, Klein and the reactor wait for the options

import os
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any, NoReturn

from twisted.application.service import IService, MultiService
from twisted.python import usage

from abproxy_model.errors import ModelUnavailable
from abproxy_model.files import require
from abproxy_model.settings import (
    Settings,
    boolean,
    model_name,
    port,
    seconds,
    whole,
)

if TYPE_CHECKING:
    from abproxy_model.model import Model

__all__ = ("Options", "makeService")


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
            port,
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
            model_name,
        ],
        [
            "max-client-batch-size",
            None,
            32,
            "Inputs that one request may have",
            whole("max-client-batch-size", 1),
        ],
        [
            "max-concurrent-requests",
            None,
            512,
            (
                "Inputs, of all requests, accepted and not yet answered; more are"
                " refused with 429"
            ),
            whole("max-concurrent-requests", 1),
        ],
        [
            "auto-truncate",
            None,
            True,
            "true or false: cut inputs that are too long for the model, or refuse them",
            boolean("auto-truncate"),
        ],
        ["api-key", None, None, "Key that callers must show as a bearer token"],
        [
            "drain-timeout",
            None,
            30.0,
            "Seconds to answer what was accepted before the process ends",
            seconds("drain-timeout"),
        ],
        [
            "listen-fd",
            None,
            None,
            (
                "Number of an inherited file descriptor, a socket that listens already,"
                " to serve on instead of --port"
            ),
            whole("listen-fd", 0),
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
            _exit(error)

    def parseArgs(self, *rest: str) -> None:
        """Refuse what is no option."""
        if rest:
            raise usage.UsageError(f"unexpected argument {rest[0]!r}")

    def settings(self) -> Settings:
        """The part that the server reads."""
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
    model, load_s = _load(options["model"])

    from twisted.internet import reactor

    from abproxy_model.service import Shutdown

    # Twisted's is the time of day: a step of it would reach every timer.
    timed: Any = reactor
    timed.seconds = monotonic

    service = MultiService()
    ready = f"{model.model_id}, {model.dimensions} dimensions, in {load_s:.2f} s"
    _server(reactor, options, model, ready).setServiceParent(service)
    shutdown = Shutdown(reactor=reactor, with_stdin=bool(options["exit-with-stdin"]))
    shutdown.setServiceParent(service)
    return service


def _server(reactor: Any, options: Options, model: "Model", ready: str) -> IService:
    from functools import partial

    from twisted.internet.threads import deferToThreadPool
    from twisted.python.threadpool import ThreadPool

    from abproxy_model.app import Application
    from abproxy_model.inference import WorkQueue
    from abproxy_model.server import ModelSite, RootResource
    from abproxy_model.service import ModelService

    settings = options.settings()
    threads = ThreadPool(minthreads=2, maxthreads=2, name="abproxy-model")
    run = partial(deferToThreadPool, reactor, threads)
    application = Application(
        model=model,
        settings=settings,
        inference=WorkQueue(run=run),
        tokenization=WorkQueue(run=run),
    )
    site = ModelSite(RootResource(application))
    return ModelService(
        reactor=reactor,
        port=_open(reactor, site, options),
        site=site,
        threads=threads,
        drain_timeout_s=settings.drain_timeout_s,
        ready=ready,
    )


def _require(name: str) -> None:
    try:
        require(name)
    except ModelUnavailable as error:
        _exit(error)


def _load(name: str) -> "tuple[Model, float]":
    """Return the model, and how long loading it took, in seconds."""
    try:
        from abproxy_model.model import load

        began_at = perf_counter()
        return load(name), perf_counter() - began_at
    except (ModelUnavailable, ImportError) as error:
        _exit(error)


def _open(reactor: Any, site: Any, options: Options) -> Any:
    from abproxy_model.listening import CannotListen, adopt, listen

    try:
        if options["listen-fd"] is not None:
            return adopt(reactor, site, options["listen-fd"])
        return listen(reactor, site, options["port"], options["ip"])
    except CannotListen as error:
        _exit(error)


def _exit(problem: Exception) -> NoReturn:
    raise SystemExit(f"abproxy-model: {problem}") from None
