"""
Discovery of an upstream's limits: at start, every minute, and after doubt.

A server that cannot be asked is no reason not to serve; what is not known has
defaults.  A refusal that contradicts what is known is believed at once.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import attrs
from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import OK

from abproxy.errors import ConnectionBroken, ProxyError, UpstreamBroken
from abproxy.http.headers import Credentials
from abproxy.http.messages import GATEWAY, NO_ROOM, Response, Send, UpstreamRequest
from abproxy.upstream.identity import NO_IDENTITY, Generations, Identity, Source
from abproxy.upstream.server_info import (
    ServerInfo,
    batch_limit_in,
    read_info,
    read_models,
)

__all__ = ["Discovery"]

INFO = b"/info"

MODELS = {b"/v1/models": "/v1/embeddings", b"/models": "/embeddings"}
"""Where a server with the OpenAI API lists models, and makes embeddings then."""

EMBED = b"/embed"
NO_ROUTE = frozenset({404, 405, 501})

MISSING = frozenset({200, 400, 404, 405, 501})
"""How a server answers /info that has no such route; 200 with a page of its own."""

EVERY_S = 60.0
"""How often a server that answers is asked again, in seconds."""

RETRY_S = 1.0
"""How long after a failure a server is asked again, in seconds."""

TIMEOUT_S = 10.0
"""How long an answer may take, in seconds: a busy server is slow to answer."""

NO_KEY = (
    "it wants a key for /info: set INFERENCE_SERVICE_KEY, or the limits by hand "
    "with MAX_BATCH_INPUTS and BUDGET"
)
WRONG_KEY = "it does not accept INFERENCE_SERVICE_KEY"


@define(kw_only=True, eq=False)
class Discovery:
    """Keeps the information on one upstream up to date."""

    ask: Send = field(repr=False)
    generations: Generations = field(repr=False)
    credentials: Credentials
    clock: IReactorTime = field(repr=False)

    on_change: Callable[[ServerInfo], None] = field(
        default=lambda _info: None, repr=False
    )
    """Called when something else is known than before."""

    dialect: str = "auto"
    """Which API the server has: tei, openai, or auto to find out."""

    which: str = field(default="", init=False)
    """What the log calls it beside others: a blank and its URL."""

    info: ServerInfo = field(factory=ServerInfo, init=False)
    _next: IDelayedCall | None = field(default=None, init=False, repr=False)
    _asking: Deferred[Any] | None = field(default=None, init=False, repr=False)
    _trouble: str = field(default="", init=False)
    _running: bool = field(default=False, init=False)
    _in_doubt: bool = field(default=True, init=False)
    _log: ClassVar[Logger] = Logger()

    def __attrs_post_init__(self) -> None:
        self.generations.ask, self.generations.doubt = self._ask_soon, self._doubt

    def start(self) -> None:
        """Query the server now, and from now on regularly."""
        self._running = True
        self._ask()

    def stop(self) -> None:
        """Stop querying."""
        self._running = False
        self._cancel_next()
        if self._asking is not None:
            self._asking.cancel()

    def answered(self, response: Response) -> Response:
        """Apply the limit in a refusal that contradicts what is known."""
        limit = None if response.status == OK else batch_limit_in(response)
        if limit is not None and limit != self.info.max_batch_inputs:
            self._believe(attrs.evolve(self.info, max_batch_inputs=limit))
            self._doubt()
        return response

    def failed(self, failure: Failure) -> Failure:
        """Query soon after a broken connection."""
        # A server that comes back may have other limits than before.
        if failure.check(ConnectionBroken):
            self._doubt()
        return failure

    @property
    def is_certain(self) -> bool:
        """Return whether it has been asked, and has certainly not been away since."""
        return not self._in_doubt

    def is_alive(self) -> Deferred[bool | None]:
        """
        Query whether the server answers; never fails.

        Fires with:
            True if it does, False if it does not, and None if the answer may be
            that of a gateway in its place.
        """
        asked = self.ask(self._question())
        asked.addTimeout(TIMEOUT_S, self.clock)
        return asked.addCallbacks(_tells_life, lambda _: False)

    def _doubt(self) -> None:
        self._in_doubt = True
        if self._running and self._asking is None:
            self._ask_in(RETRY_S)

    def _ask_soon(self) -> None:
        if self._running and self._asking is None:
            self._ask_in(0)

    def _ask(self) -> None:
        self._next = None
        asking = self._asking = Deferred.fromCoroutine(self._ask_once())
        asking.addErrback(self._not_asked).addCallback(self._asked)

    def _asked(self, pause_s: float) -> None:
        self._asking = None
        if self._running:
            self._ask_in(pause_s)

    def _not_asked(self, failure: Failure) -> float:
        if not failure.check(CancelledError):
            self._log.failure("A bug while querying the inference server", failure)
        return RETRY_S

    async def _ask_once(self) -> float:
        """Query once, and return after how many seconds to do it again."""
        try:
            asked = await self._learn()
        except ProxyError as error:
            self._note_trouble(str(error))
            return RETRY_S
        if asked is not self.generations.source:
            return RETRY_S  # another may have taken its place meanwhile
        self._in_doubt = False
        return EVERY_S

    async def _learn(self) -> Source:
        """Query limits and model, and return which server has answered."""
        trouble = ""
        if self.dialect != "openai":
            response = await self._get(INFO)
            if (source := self._take(read_info(response), response)) is not None:
                return source
            trouble = self._trouble_of(response)
            if response.status in GATEWAY | NO_ROOM:
                raise UpstreamBroken(trouble)
        if self.dialect != "tei" and (not trouble or response.status in MISSING):
            for path, embeddings_path in MODELS.items():
                response = await self._get(path)
                info = read_models(response, embeddings_path)
                if info is not None and await self._has_embed():
                    break  # which is none of TEI's, so nothing is known of it
                if (source := self._take(info, response)) is not None:
                    return source
                trouble = trouble or self._trouble_of(response, path)
        self._note_trouble(trouble)
        return self._take_silence(response)

    async def _has_embed(self) -> bool:
        """Return whether the server has its own /embed, by a call of no inputs."""
        if self.dialect == "openai" or self.info.embeddings_path is not None:
            return False
        headers = self.credentials.on(((b"Content-Type", b"application/json"),))
        call = UpstreamRequest(path=EMBED, headers=headers, body=b"{}")
        response = await self._in_time(call)
        return response.status not in NO_ROUTE

    def _get(self, path: bytes) -> Deferred[Response]:
        return self._in_time(self._question(path))

    def _in_time(self, request: UpstreamRequest) -> Deferred[Response]:
        return self.ask(request).addTimeout(
            TIMEOUT_S, self.clock, lambda *_: Failure(_no_answer(request.path))
        )

    def _question(self, path: bytes = INFO) -> UpstreamRequest:
        headers = self.credentials.on(())
        return UpstreamRequest(method=b"GET", path=path, headers=headers, body=b"")

    def _take(self, info: ServerInfo | None, response: Response) -> Source | None:
        """Apply the *info* in *response*; return its source, or None without any."""
        if info is None:
            return None
        self._trouble = ""
        self._believe(info)
        return self._settle(response, info.identity)

    def _take_silence(self, response: Response) -> Source:
        """Note that a server does not name its model, unless it has done so before."""
        source = response.source or self.generations.source
        if source.identity is not None:
            return source
        nothing = attrs.evolve(self.info, model=None, models=(), sha=None, dtype=None)
        self._believe(nothing)
        return self._settle(response, NO_IDENTITY)

    def _settle(self, response: Response, identity: Identity) -> Source:
        """Note what the source of *response* says; return the one it is now."""
        source = response.source or self.generations.source
        self.generations.settle(source, identity)
        return self.generations.source if source.later is not None else source

    def _trouble_of(self, response: Response, path: bytes = INFO) -> str:
        if response.status in {401, 403}:
            return NO_KEY if self.credentials.key is None else WRONG_KEY
        kind = "TEI" if path == INFO else "the OpenAI API"
        return f"it answers {path.decode()} with {response.status}, unlike {kind}"

    def _believe(self, info: ServerInfo) -> None:
        if info != self.info:
            self.info = info
            message = "The inference server{which} has {info}"
            self._log.info(message, which=self.which, info=str(info))
            self.on_change(info)

    def _note_trouble(self, trouble: str) -> None:
        if trouble != self._trouble:
            self._trouble = trouble
            message = "Cannot query the inference server{which}: {why}"
            self._log.warn(message, which=self.which, why=trouble)

    def _ask_in(self, pause_s: float) -> None:
        # Doubt may only bring a question forward: a server that breaks down
        # every half second would never be asked otherwise.
        at = self.clock.seconds() + pause_s
        if self._next is not None and self._next.getTime() <= at:
            return
        self._cancel_next()
        self._next = self.clock.callLater(pause_s, self._ask)

    def _cancel_next(self) -> None:
        if self._next is not None:
            self._next.cancel()
            self._next = None


def _no_answer(path: bytes) -> UpstreamBroken:
    what = f"{path.decode()} within {TIMEOUT_S:g} seconds"
    return UpstreamBroken(f"it did not answer {what}")


def _tells_life(response: Response) -> bool | None:
    if response.status == OK:
        return True
    return False if response.status in GATEWAY else None
