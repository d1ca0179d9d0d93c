"""
A small real model, and a server for it, without a file and without a socket.

Each byte of a text is one token.  A text's row depends on nothing but the
text, to the last bit, so that a row can be followed through any batch; and a
text that is too long is short enough to be drawn by Hypothesis.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
from attrs import define, field
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.testing import StringTransportWithDisconnection

from abproxy_model.app import Application
from abproxy_model.inference import WorkQueue
from abproxy_model.model import Model, Static
from abproxy_model.server import ModelSite, RootResource
from abproxy_model.settings import Settings
from abproxy_model.tokens import Tokens
from support.client import Client

TOKENS = 256
DIMENSIONS = 4
MAX_TOKENS = 16


def byte_model() -> Model:
    """Make the model."""
    letters = sorted(ByteLevel.alphabet())
    tokenizer = Tokenizer(
        BPE(vocab={letter: at for at, letter in enumerate(letters)}, merges=[])
    )
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = ByteLevelDecoder()
    table = np.random.default_rng(0).standard_normal((TOKENS, DIMENSIONS))
    return Model(
        model_id="bytes",
        served_model_name="bytes",
        dimensions=DIMENSIONS,
        tokens=Tokens(
            tokenizer=tokenizer,
            max_input_length=MAX_TOKENS,
            vocabulary=TOKENS,
            special=False,
        ),
        token_vectors=Static(table=table),
    )


MODEL = byte_model()


@define(eq=False)
class Thread:
    """Does its work when it is told to."""

    _work: deque[tuple[Callable[[], Any], Deferred[Any]]] = field(
        init=False, factory=deque
    )

    def run(self, work: Callable[[], Any]) -> Deferred[Any]:
        """Take in *work*; fires with its result."""
        done: Deferred[Any] = Deferred()
        self._work.append((work, done))
        return done

    def go_on(self) -> bool:
        """Do what was taken in first, if there is anything."""
        if not self._work:
            return False
        work, done = self._work.popleft()
        maybeDeferred(work).chainDeferred(done)
        return True


@define(eq=False)
class ModelServer:
    """The server, which can be asked directly or be a proxy's upstream."""

    settings: Settings = field(factory=Settings)
    thread: Thread = field(init=False, factory=Thread)
    application: Application = field(init=False)
    resource: RootResource = field(init=False)
    site: ModelSite = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.application = Application(
            model=MODEL,
            settings=self.settings,
            inference=WorkQueue(run=self.thread.run),
            tokenization=WorkQueue(run=self.thread.run),
        )
        self.resource = RootResource(self.application)
        self.site = ModelSite(self.resource)
        self.site.timeOut = None  # by the real clock, which stands still here

    def connect(self) -> Client:
        """Open a connection."""
        channel: Any = self.site.buildProtocol(None)
        transport = StringTransportWithDisconnection()
        transport.protocol = channel
        channel.makeConnection(transport)
        return Client(transport, channel)

    @property
    def is_at_rest(self) -> bool:
        """Whether no input is accepted and not yet answered."""
        return (
            not self.application.permits.taken and not self.application.inference.size
        )
