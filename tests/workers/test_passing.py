"""What is ours at the door of a worker, and who answers."""

import msgspec
import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import LogEvent, capturedLogs
from wired import Wired, wired

from abproxy.errors import CannotConnect
from abproxy.http.messages import Response, UpstreamRequest
from abproxy.web.admin import Operations
from abproxy.workers.crew import Log
from abproxy.workers.passing import OF_ALL, pass_on

FOREMANS = Response(status=200, reason=b"", headers=(), body=b"of all")


class Supervisor:
    """Answers, as long as it is there."""

    def __init__(self, *, is_there: bool = True) -> None:
        self.asked: list[UpstreamRequest] = []
        self.is_there = is_there

    def ask(self, question: UpstreamRequest) -> Deferred[Response]:
        """Answer a question."""
        self.asked.append(question)
        return succeed(FOREMANS) if self.is_there else fail(CannotConnect("gone"))


def passes_on(
    here: Wired, foreman: Supervisor, shown: Operations | None = None
) -> None:
    """Let a house show what a worker does."""
    site = here.service.site
    own = site.operations
    site.operations = pass_on(shown or own, own, foreman.ask)


@pytest.mark.parametrize("path", sorted(OF_ALL))
def test_figures_are_the_foremans(path: bytes) -> None:
    """A worker knows only its own."""
    with wired() as here:
        foreman = Supervisor()
        passes_on(here, foreman)

        answer = here.ask("GET", path.decode())

        assert answer.body == b"of all"
        assert [question.path for question in foreman.asked] == [path]


def test_the_foreman_hears_what_is_wanted() -> None:
    """Batches after a serial, in a format, with a key."""
    with wired() as here:
        foreman = Supervisor()
        passes_on(here, foreman)
        lines = (("Accept", "text/plain"), ("Authorization", "Bearer k"))

        here.ask("GET", "/-/status.json?since=3", b"", *lines, ("Cookie", "c"))

        [question] = foreman.asked
        assert question.path == b"/-/status.json?since=3"
        assert question.headers == (
            (b"Accept", b"text/plain"),
            (b"Authorization", b"Bearer k"),
        )


def test_who_has_no_key_does_not_reach_the_foreman() -> None:
    """Each door asks for itself."""
    with wired(api_keys=("sesame",)) as here:
        foreman = Supervisor()
        passes_on(here, foreman)

        answer = here.ask("GET", "/-/status.json")

        assert answer.status == 401
        assert foreman.asked == []


def test_pages_without_figures_are_the_workers_own() -> None:
    """They are the same everywhere."""
    with wired() as here:
        foreman = Supervisor()
        passes_on(here, foreman)

        answer = here.ask("GET", "/-/")

        assert b"<html" in answer.body
        assert foreman.asked == []


def test_what_is_not_shown_at_the_clients_door_is_not_passed_on() -> None:
    """Where operators have a port of their own."""
    with wired() as here:
        foreman = Supervisor()
        own = here.service.site.operations
        health = Operations(pages={b"/health": own.pages[b"/health"]})
        passes_on(here, foreman, shown=health)

        answer = here.ask("GET", "/-/status.json")

        assert answer.status == 404
        assert foreman.asked == []


def test_a_foreman_that_does_not_answer_is_said_to() -> None:
    """It is not the inference server that is away."""
    with wired() as here:
        passes_on(here, Supervisor(is_there=False))

        answer = here.ask("GET", "/-/ready")

        assert answer.status == 503
        assert b"the foreman of the workers does not answer" in answer.body


def logged(line: bytes) -> LogEvent:
    """Say what the foreman logs when worker 1 says *line*."""
    with capturedLogs() as events:
        Log().logged("1", line)
    [event] = events
    return event


def shown(event: LogEvent) -> str:
    """Say what an event looks like."""
    return str(event["log_format"]).format(**event)


def test_what_a_worker_logs_is_logged_with_its_name() -> None:
    """As important as it was, from where it was, with what it was about."""
    event = logged(b'{"time":"t","level":"warn","logger":"a.b","message":"so","n":3}')

    assert shown(event) == "worker 1: so"
    assert (event["log_level"].name, event["log_namespace"]) == ("warn", "a.b")
    assert (event["worker"], event["n"]) == ("1", 3)


def test_a_traceback_of_a_worker_is_not_lost() -> None:
    """Nor is it a failure of the foreman's."""
    event = logged(
        b'{"level":"critical","logger":"a","message":"oh","traceback":"Traceback"}'
    )

    assert shown(event) == "worker 1: oh\nTraceback"


@pytest.mark.parametrize("member", ["said", "worker", "text"])
def test_a_member_of_any_name_is_no_trouble(member: str) -> None:
    """Rooms call their fields as they like."""
    line = msgspec.json.encode(
        {"level": "info", "logger": "a", "message": "so", member: "x"}
    )

    assert shown(logged(line)) == "worker 1: so"


def test_what_python_itself_says_is_a_warning() -> None:
    """Nobody says such a thing on purpose."""
    with capturedLogs() as events:
        Log().wrote("2", b"Segmentation f\xffault")

    [event] = events
    assert shown(event) == "worker 2: Segmentation f\N{REPLACEMENT CHARACTER}ault"
    assert event["log_level"].name == "warn"
