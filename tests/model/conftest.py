"""The models, loaded once, and servers in memory."""

import os
from collections.abc import Callable
from typing import Any

# As `tap` does; numpy reads it when it is imported, which is with the model.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pytest
from attrs import define, field
from treq.testing import StubTreq
from twisted.internet.defer import Deferred, maybeDeferred

from abproxy_model.app import Application
from abproxy_model.inference import WorkQueue
from abproxy_model.model import Model, load
from abproxy_model.server import RootResource
from abproxy_model.settings import Settings


@define(eq=False)
class Held:
    """A thread that works when the test says so."""

    work: list[tuple[Callable[[], Any], Deferred[Any]]] = field(factory=list)

    def __call__(self, work: Callable[[], Any]) -> Deferred[Any]:
        """Take *work*."""
        done: Deferred[Any] = Deferred()
        self.work.append((work, done))
        return done

    def finish(self) -> None:
        """Do the work that was taken first."""
        work, done = self.work.pop(0)
        maybeDeferred(work).chainDeferred(done)


@define(eq=False)
class Answer:
    """What a server in memory answered."""

    status: int
    headers: dict[str, str]
    body: bytes


@define(eq=False)
class Server:
    """A server in memory and its client."""

    application: Application
    treq: StubTreq
    answers: list[Any] = field(factory=list)

    def send(
        self, method: str, path: str, body: bytes | None, **headers: str
    ) -> Deferred[Any]:
        """Send a request; its answer is added to `answers` when it comes."""
        asked: Deferred[Any] = self.treq.request(
            method,
            f"http://model{path}",
            data=body,
            headers={name.replace("_", "-"): value for name, value in headers.items()},
        )
        asked.addCallback(self._read)
        asked.addErrback(self.answers.append)
        return asked

    def ask(self, method: str, path: str, body: bytes | None, **headers: str) -> Answer:
        """Send a request that is answered at once."""
        self.send(method, path, body, **headers)
        self.treq.flush()
        answer: Answer = self.answers.pop()
        return answer

    def post(self, path: str, body: bytes) -> Answer:
        """Post JSON."""
        return self.ask("POST", path, body, content_type="application/json")

    def _read(self, response: Any) -> Deferred[Any]:
        headers = {
            name.decode().lower(): values[0].decode()
            for name, values in response.headers.getAllRawHeaders()
        }
        content: Deferred[Any] = self.treq.content(response)
        return content.addCallback(
            lambda body: self.answers.append(Answer(response.code, headers, body))
        )


@pytest.fixture(scope="session")
def minilm() -> Model:
    """Give all-MiniLM-L6-v2."""
    return load("minilm")


@pytest.fixture(scope="session")
def static() -> Model:
    """Give the table of token vectors."""
    return load("static")


@pytest.fixture
def held() -> Held:
    """Give a thread that works when the test says so."""
    return Held()


@pytest.fixture
def serve() -> Callable[..., Server]:
    """Give a function that serves a model in memory."""

    def start(
        model: Model,
        settings: Settings | None = None,
        run: Callable[[Callable[[], Any]], Deferred[Any]] = maybeDeferred,
    ) -> Server:
        application = Application(
            model=model,
            settings=settings or Settings(),
            inference=WorkQueue(run=run),
            tokenization=WorkQueue(run=run),
        )
        return Server(application, StubTreq(RootResource(application)))

    return start
