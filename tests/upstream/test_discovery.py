"""When the upstream is asked who it is, and what is believed."""

from typing import Any

import pytest
from attrs import define, field
from msgspec.structs import force_setattr
from twisted.internet.defer import fail, succeed
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from abproxy.errors import ConnectionBroken, UpstreamBroken, UpstreamTimeout
from abproxy.http.headers import Credentials
from abproxy.http.messages import UpstreamRequest
from abproxy.upstream.client import Upstream
from abproxy.upstream.discovery import Discovery
from abproxy.upstream.identity import NO_IDENTITY, Identity
from abproxy.upstream.server_info import ServerInfo
from support.upstream import RecordingUpstream, make_upstream, reply

INFO = (
    b'{"max_client_batch_size":%d,"max_concurrent_requests":512,'
    b'"model_type":{"embedding":{"pooling":"mean"}}}'
)
OF_MODEL = INFO[:-1].replace(b"%d", b"32") + b',"model_id":"%b"}'
TOO_MANY = b'{"error":"batch size 33 > maximum allowed batch size 8"}'
BATCH = UpstreamRequest(path=b"/embed", headers=(), body=b"{}")


@define(eq=False)
class Discovering:
    """A discovery with its clock and upstream."""

    clock: Clock = field(factory=Clock)
    upstream: RecordingUpstream = field(factory=RecordingUpstream)
    learned: list[ServerInfo] = field(factory=list)
    server: Upstream = field(init=False)
    key: str | None = None
    dialect: str = "auto"

    def __attrs_post_init__(self) -> None:
        self.server = make_upstream(
            self.upstream.send, self.clock, credentials=Credentials(key=self.key)
        )
        self.discovery.dialect = self.dialect
        self.discovery.on_change = self.learned.append
        self.discovery.start()

    @property
    def discovery(self) -> Discovery:
        return self.server.discovery

    @property
    def count(self) -> int:
        return len(self.upstream.sent)

    def tell(self, limit: int = 32) -> None:
        self.upstream.open[0].done.callback(reply(200, INFO % limit))


def test_it_asks_at_once() -> None:
    """At start nothing is known."""
    asking = Discovering()

    [sent] = asking.upstream.sent
    assert (sent.request.method, sent.request.path) == (b"GET", b"/info")
    assert asking.discovery.info == ServerInfo()


def test_it_asks_with_our_own_key() -> None:
    """TEI wants it for /info as well."""
    asking = Discovering(key="ours")

    assert asking.upstream.sent[0].request.headers == (
        (b"Authorization", b"Bearer ours"),
    )
    assert "ours" not in repr(asking.discovery)


def test_what_is_learned_is_told() -> None:
    """And known from then on."""
    asking = Discovering()

    asking.tell(limit=8)

    assert [facts.max_batch_inputs for facts in asking.learned] == [8]
    assert asking.discovery.info.task == "embedding"


def test_what_is_learned_is_logged_in_words() -> None:
    """What is not known is left out."""
    info = ServerInfo(model="m", task="embedding", max_batch_inputs=32)

    assert str(info) == "model m (embedding), 32 inputs a request at most"


def test_it_asks_again_every_minute() -> None:
    """A server may be restarted with other limits."""
    asking = Discovering()
    asking.tell()

    asking.clock.advance(59)
    before = asking.count
    asking.clock.advance(1)

    assert (before, asking.count) == (1, 2)


def test_the_same_answer_is_no_news() -> None:
    """Nothing is told twice."""
    asking = Discovering()
    asking.tell()
    asking.clock.advance(60)

    asking.tell()

    assert len(asking.learned) == 1


@pytest.mark.parametrize(
    "error", [UpstreamBroken("no"), ConnectionBroken("no"), UpstreamTimeout("no")]
)
def test_a_server_that_cannot_be_asked_is_asked_again_soon(error: Exception) -> None:
    """It is perhaps just starting."""
    asking = Discovering()
    asking.upstream.sent[0].fail(error)

    asking.clock.advance(1)

    assert asking.count == 2


def test_trouble_is_logged_once() -> None:
    """Not every second while it lasts."""
    with capturedLogs() as logged:
        asking = Discovering()
        for _ in range(3):
            asking.upstream.open[0].fail(UpstreamBroken("connection refused"))
            asking.clock.advance(1)

    assert [event["why"] for event in logged] == ["connection refused"]


def test_trouble_that_comes_back_is_logged_again() -> None:
    """It was over in between."""
    with capturedLogs() as logged:
        asking = Discovering()
        asking.upstream.open[0].fail(UpstreamBroken("refused"))
        asking.clock.advance(1)
        asking.tell()
        asking.clock.advance(60)
        asking.upstream.open[0].fail(UpstreamBroken("refused"))

    # In between it answers again, and says what it is.
    assert [event.get("why") for event in logged] == ["refused", None, None, "refused"]


def test_a_server_that_does_not_answer_is_given_up_and_asked_again() -> None:
    """A question that hangs would be the last one."""
    asking = Discovering()

    asking.clock.advance(10)
    asking.clock.advance(1)

    assert asking.upstream.sent[0].was_cancelled
    assert asking.count == 2


def test_a_server_that_wants_a_key_is_asked_again_in_a_minute() -> None:
    """The log says which setting to make."""
    with capturedLogs() as logged:
        asking = Discovering()
        asking.upstream.sent[0].refuse(401, b"")

    assert "INFERENCE_SERVICE_KEY" in logged[0]["why"]
    assert [call.getTime() for call in asking.clock.getDelayedCalls()] == [60]


@pytest.mark.parametrize(
    ("key", "advice"),
    [(None, "set INFERENCE_SERVICE_KEY"), ("k3y", "does not accept")],
)
def test_who_is_shut_out_is_told_what_to_do(key: str | None, advice: str) -> None:
    """A key that is missing is no key that is wrong; neither shows it."""
    asking = Discovering(key=key)
    with capturedLogs() as events:
        asking.upstream.sent[0].refuse(401, b"")

    [told] = [event["why"] for event in events if "why" in event]
    assert advice in told
    assert "k3y" not in told


def test_a_server_that_is_no_tei_is_no_trouble() -> None:
    """It is served with defaults, and the log says so."""
    with capturedLogs() as logged:
        asking = Discovering()
        asking.upstream.sent[0].refuse(404, b"<html>")
        while asking.upstream.open:
            asking.upstream.open[0].refuse(404, b"<html>")

    assert logged[0]["why"] == "it answers /info with 404, unlike TEI"
    assert asking.discovery.info == ServerInfo()
    assert asking.learned == []


def paths_of(asking: Discovering) -> list[bytes]:
    """Return what was asked for."""
    return [sent.request.path for sent in asking.upstream.sent]


@pytest.mark.parametrize(
    ("models", "known"),
    [
        (b'{"object":"list","data":[{"id":"m","object":"model"}]}', {"model": "m"}),
        (b'{"data":[{"id":"n"},{"id":"m"}]}', {"models": ("m", "n")}),
        (b'{"data":[]}', {}),
    ],
)
def test_a_server_with_the_openai_api_is_found_by_its_models(
    models: bytes, known: dict[str, Any]
) -> None:
    """Its name is known if there is but one."""
    asking = Discovering()
    asking.upstream.open[0].refuse(404)
    asking.upstream.open[0].refuse(200, models)
    asking.upstream.open[0].refuse(404)

    assert paths_of(asking) == [b"/info", b"/v1/models", b"/embed"]
    assert asking.learned == [ServerInfo(embeddings_path="/v1/embeddings", **known)]


def test_a_server_without_a_version_in_its_paths_is_found_too() -> None:
    """As Infinity has them."""
    asking = Discovering()
    asking.upstream.open[0].refuse(404)
    asking.upstream.open[0].refuse(404)
    asking.upstream.open[0].refuse(200, b'{"data":[{"id":"m"}]}')
    asking.upstream.open[0].refuse(405)

    assert paths_of(asking)[-2:] == [b"/models", b"/embed"]
    assert asking.discovery.info.embeddings_path == "/embeddings"


def test_a_server_with_an_embed_of_its_own_is_left_alone() -> None:
    """It is asked with a call that has no inputs, which nothing can compute."""
    asking = Discovering()
    asking.upstream.open[0].refuse(404)
    asking.upstream.open[0].refuse(200, b'{"data":[{"id":"m"}]}')
    question = asking.upstream.open[0].request
    asking.upstream.open[0].refuse(422)

    assert (question.method, question.body) == (b"POST", b"{}")
    assert asking.discovery.info == ServerInfo()
    assert asking.learned == []


@pytest.mark.parametrize("status", [401, 403, 500, 502, 503])
def test_trouble_with_info_is_no_sign_of_another_api(status: int) -> None:
    """TEI may want a key, or be about to start behind a gateway."""
    asking = Discovering()
    asking.upstream.open[0].refuse(status)

    assert paths_of(asking) == [b"/info"]


@pytest.mark.parametrize(
    ("dialect", "paths"),
    [("tei", [b"/info"]), ("openai", [b"/v1/models", b"/models"])],
)
def test_what_the_operator_says_is_not_asked_for(
    dialect: str, paths: list[bytes]
) -> None:
    """Each is asked only for what it may have."""
    asking = Discovering(dialect=dialect)
    while asking.upstream.open:
        asking.upstream.open[0].refuse(404)

    assert paths_of(asking) == paths


def test_a_refusal_that_contradicts_what_is_known_is_believed() -> None:
    """At once, and the server is asked again a second later."""
    asking = Discovering()
    asking.tell(limit=32)
    results: list[Any] = []

    asking.server.send(BATCH).addCallback(results.append)
    asking.upstream.open[0].refuse(422, TOO_MANY)
    asking.clock.advance(1)

    assert [facts.max_batch_inputs for facts in asking.learned] == [32, 8]
    assert asking.discovery.info.task == "embedding"
    assert results[0].body == TOO_MANY
    assert asking.upstream.sent[-1].request.path == b"/info"


def test_a_refusal_that_says_nothing_new_is_only_passed_on() -> None:
    """A client may send too many inputs at any time."""
    asking = Discovering()
    asking.tell(limit=8)

    asking.server.send(BATCH)
    asking.upstream.open[0].refuse(422, TOO_MANY)
    asking.clock.advance(1)

    assert asking.count == 2
    assert len(asking.learned) == 1


def test_a_broken_connection_is_a_reason_to_ask() -> None:
    """A server that comes back may be another."""
    asking = Discovering()
    asking.tell()
    results: list[Any] = []

    asking.server.send(BATCH).addErrback(results.append)
    asking.upstream.open[0].fail(ConnectionBroken("gone"))
    asking.clock.advance(1)

    assert results[0].check(ConnectionBroken)
    assert asking.upstream.sent[-1].request.path == b"/info"


def test_the_model_is_not_certain_before_the_server_has_said_which_it_is() -> None:
    """Nor after a broken connection, until it has said so again."""
    asking = Discovering()
    assert not asking.discovery.is_certain
    asking.tell()
    assert asking.discovery.is_certain
    asking.server.send(BATCH).addErrback(lambda _: None)
    asking.upstream.open[0].fail(ConnectionBroken("gone"))
    assert not asking.discovery.is_certain
    asking.clock.advance(1)
    asking.tell()
    assert asking.discovery.is_certain


def test_an_answer_from_before_a_break_makes_nothing_certain() -> None:
    """It was given by the server that may be gone."""
    asking = Discovering()
    asking.server.send(BATCH).addErrback(lambda _: None)
    before = asking.server.generations.source
    answer = reply(200, INFO % 32)
    force_setattr(answer, "source", before)

    asking.upstream.open[1].fail(ConnectionBroken("gone"))
    asking.upstream.open[0].done.callback(answer)
    assert not asking.discovery.is_certain

    asking.clock.advance(1)
    asking.tell()
    assert asking.discovery.is_certain


def test_who_waits_for_the_model_lets_it_be_asked_for_at_once() -> None:
    """Not only a second after the break."""
    asking = Discovering()
    asking.tell()
    asking.server.send(BATCH).addErrback(lambda _: None)
    asking.upstream.open[0].fail(ConnectionBroken("gone"))

    known = asking.server.generations.source.known()
    asking.clock.advance(0)
    asking.upstream.open[0].done.callback(reply(200, OF_MODEL % b"m"))

    assert known.called
    assert asking.server.generations.source.identity == Identity(models=("m",))


def test_another_model_at_the_same_address_is_learned() -> None:
    """Also if no connection broke."""
    asking = Discovering()
    asking.upstream.open[0].done.callback(reply(200, OF_MODEL % b"m"))
    before = asking.server.generations.source

    asking.clock.advance(60)
    asking.upstream.open[0].done.callback(reply(200, OF_MODEL % b"n"))

    assert before.later == Identity(models=("n",))
    assert asking.server.generations.source.identity == before.later
    assert asking.learned[-1].model == "n"
    assert asking.discovery.is_certain


def test_a_server_that_comes_back_without_a_name_has_another_model() -> None:
    """What is remembered of the one before is not its own."""
    asking = Discovering()
    asking.upstream.open[0].done.callback(reply(200, OF_MODEL % b"m"))
    asking.server.send(BATCH).addErrback(lambda _: None)
    asking.upstream.open[0].fail(ConnectionBroken("gone"))

    asking.clock.advance(1)
    while asking.upstream.open:
        asking.upstream.open[0].refuse(404)

    assert asking.server.generations.source.identity == NO_IDENTITY
    assert asking.learned[-1].model is None


def test_a_server_that_lives_on_is_still_known() -> None:
    """A key that it does not accept any more says nothing of its model."""
    asking = Discovering()
    asking.upstream.open[0].done.callback(reply(200, OF_MODEL % b"m"))

    asking.clock.advance(60)
    while asking.upstream.open:
        asking.upstream.open[0].refuse(401)

    assert asking.server.generations.source.identity == Identity(models=("m",))
    assert asking.discovery.info.model == "m"


def test_an_answer_of_a_gateway_does_not_say_which_model_there_is() -> None:
    """The server behind it is about to start, and is asked again soon."""
    asking = Discovering()
    asking.upstream.open[0].refuse(503)
    assert not asking.discovery.is_certain
    asking.clock.advance(1)
    asking.tell()
    assert asking.discovery.is_certain


def test_a_server_that_is_no_tei_is_certain_once_all_was_asked() -> None:
    """That it has no /info does not say which model it has."""
    asking = Discovering()
    certain = []
    while asking.upstream.open:
        asking.upstream.open[0].refuse(404)
        certain.append(asking.discovery.is_certain)
    assert certain == [False] * (len(certain) - 1) + [True]
    assert len(certain) > 1


def test_a_slow_answer_is_no_reason_to_ask() -> None:
    """The server is busy, not new."""
    asking = Discovering()
    asking.tell()

    asking.server.send(BATCH).addErrback(lambda _: None)
    asking.upstream.open[0].fail(UpstreamTimeout("slow"))
    asking.clock.advance(1)

    assert asking.count == 2


def test_doubt_after_doubt_does_not_put_the_question_off() -> None:
    """A server that breaks down all the time is asked nevertheless."""
    asking = Discovering()
    asking.tell()

    for _ in range(4):
        asking.server.send(BATCH).addErrback(lambda _: None)
        asking.upstream.open[-1].fail(ConnectionBroken("gone"))
        asking.clock.advance(0.5)

    paths = [sent.request.path for sent in asking.upstream.sent]
    assert paths[1:].count(b"/info") == 1


def test_doubt_while_asking_is_answered_already() -> None:
    """One question at a time."""
    asking = Discovering()

    asking.server.send(BATCH).addErrback(lambda _: None)
    asking.upstream.open[1].fail(ConnectionBroken("gone"))
    asking.clock.advance(1)

    assert asking.count == 2


@pytest.mark.parametrize(
    "answer", [lambda _: succeed(reply(200, INFO % 8)), lambda _: fail(_BROKEN)]
)
def test_an_outcome_in_the_same_turn_does_not_end_the_asking(answer: Any) -> None:
    """Doubt is heard afterwards as it was before."""
    clock = Clock()
    upstream = make_upstream(answer, clock)
    discovery = upstream.discovery

    discovery.start()
    upstream.send(BATCH).addErrback(lambda _: None)

    assert discovery._asking is None
    assert len(clock.getDelayedCalls()) == 1
    discovery.stop()


_BROKEN = ConnectionBroken("gone")


def test_stopping_leaves_no_timer() -> None:
    """Nothing happens after the end."""
    asking = Discovering()
    asking.tell()

    asking.discovery.stop()

    assert not asking.clock.getDelayedCalls()


def test_stopping_takes_the_open_question_back() -> None:
    """And nobody complains that it was not answered."""
    with capturedLogs() as logged:
        asking = Discovering()

        asking.discovery.stop()

    assert asking.upstream.sent[0].was_cancelled
    assert not asking.clock.getDelayedCalls()
    assert logged == []


def test_doubt_after_stopping_is_no_reason_to_ask() -> None:
    """The last batches may break while the proxy stops."""
    asking = Discovering()
    asking.server.send(BATCH).addErrback(lambda _: None)
    asking.discovery.stop()

    asking.upstream.sent[1].fail(ConnectionBroken("gone"))

    assert not asking.clock.getDelayedCalls()


def test_a_bug_in_who_learns_is_logged_and_the_asking_goes_on(
    nothing_leaked: list[object],
) -> None:
    """What is not known now may be known in a second."""

    def learned(_facts: ServerInfo) -> None:
        raise RuntimeError("a bug")

    asking = Discovering()
    asking.discovery.on_change = learned
    asking.tell()

    assert len(nothing_leaked) == 1
    nothing_leaked.clear()
    assert len(asking.clock.getDelayedCalls()) == 1
