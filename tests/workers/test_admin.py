"""Our own pages at a worker, and which process answers."""

import pytest
from twisted.internet.defer import Deferred, fail, succeed

from abproxy.errors import CannotConnect
from abproxy.http.messages import Response, UpstreamRequest
from abproxy.web.admin import Operations
from abproxy.workers.admin import OF_ALL, ask_supervisor
from support.proxy import InMemoryProxy, wired

OF_ALL_WORKERS = Response(status=200, reason=b"", headers=(), body=b"of all")


class Supervisor:
    """Answers, as long as it is there."""

    def __init__(self, *, is_there: bool = True) -> None:
        self.asked: list[UpstreamRequest] = []
        self.is_there = is_there

    def ask(self, question: UpstreamRequest) -> Deferred[Response]:
        """Answer a question."""
        self.asked.append(question)
        return succeed(OF_ALL_WORKERS) if self.is_there else fail(CannotConnect("gone"))


def passes_on(
    here: InMemoryProxy, supervisor: Supervisor, shown: Operations | None = None
) -> None:
    """Show what a worker does."""
    site = here.service.site
    own = site.operations
    pages = ask_supervisor((shown or own).pages, supervisor.ask)
    site.operations = Operations(pages=pages)


@pytest.mark.parametrize("path", sorted(OF_ALL))
def test_figures_are_the_supervisors(path: bytes) -> None:
    """A worker knows only its own."""
    with wired() as here:
        supervisor = Supervisor()
        passes_on(here, supervisor)

        answer = here.ask("GET", path.decode())

        assert answer.body == b"of all"
        assert [question.path for question in supervisor.asked] == [path]


def test_the_supervisor_hears_what_is_wanted() -> None:
    """Batches after a serial, in a format, with a key."""
    with wired() as here:
        supervisor = Supervisor()
        passes_on(here, supervisor)
        lines = (("Accept", "text/plain"), ("Authorization", "Bearer k"))

        here.ask("GET", "/-/status.json?since=3", b"", *lines, ("Cookie", "c"))

        [question] = supervisor.asked
        assert question.path == b"/-/status.json?since=3"
        assert question.headers == (
            (b"Accept", b"text/plain"),
            (b"Authorization", b"Bearer k"),
        )


def test_who_has_no_key_does_not_reach_the_supervisor() -> None:
    """Each process asks for a key itself."""
    with wired(api_keys=("sesame",)) as here:
        supervisor = Supervisor()
        passes_on(here, supervisor)

        answer = here.ask("GET", "/-/status.json")

        assert answer.status == 401
        assert supervisor.asked == []


def test_pages_without_figures_are_the_workers_own() -> None:
    """They are the same everywhere."""
    with wired() as here:
        supervisor = Supervisor()
        passes_on(here, supervisor)

        answer = here.ask("GET", "/-/")

        assert b"<html" in answer.body
        assert supervisor.asked == []


def test_what_is_not_shown_to_clients_is_not_passed_on() -> None:
    """Where operators have a port of their own."""
    with wired() as here:
        supervisor = Supervisor()
        own = here.service.site.operations
        health = Operations(pages={b"/health": own.pages[b"/health"]})
        passes_on(here, supervisor, shown=health)

        answer = here.ask("GET", "/-/status.json")

        assert answer.status == 404
        assert supervisor.asked == []


def test_a_supervisor_that_does_not_answer_is_said_to() -> None:
    """It is not the inference server that is away."""
    with wired() as here:
        passes_on(here, Supervisor(is_there=False))

        answer = here.ask("GET", "/-/ready")

        assert answer.status == 503
        assert b"the supervisor of the workers does not answer" in answer.body
