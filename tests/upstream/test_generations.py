"""When another server may be at an address, as far as connections tell."""

import pytest
from twisted.internet.defer import fail
from twisted.internet.error import ConnectError

from abproxy.http.messages import Response
from abproxy.upstream.identity import NO_IDENTITY, Generations, Identity, Source
from upstream.clients import Asked, Client, fast, treq

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n[[1]]"
LAST = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\n[[1]]"
WITHOUT_LENGTH = b"HTTP/1.0 200 OK\r\n\r\n[[1]]"
A, B = Identity(models=("a",)), Identity(models=("b",))


def source_of(asked: Asked) -> Source:
    """Return where an answer comes from."""
    assert isinstance(asked.told, Response), asked.told
    source = asked.told.source
    assert isinstance(source, Source)
    return source


def answered(client: Client, answer: bytes = ANSWER) -> Source:
    """Return the source of the next answer, on whatever connection there is."""
    asked = client.send()
    client.ends.last.answer(answer)
    return source_of(asked)


def test_answers_on_one_connection_have_one_source() -> None:
    """It leads to one process."""
    client = fast()

    assert answered(client) is answered(client)


def test_a_connection_that_breaks_ends_a_generation() -> None:
    """The server may have died, and another one started."""
    client = fast()
    before = answered(client)

    client.send()
    client.ends.last.lose()

    assert before.is_over
    assert answered(client) is not before


def test_an_answer_that_breaks_off_ends_a_generation() -> None:
    """As a server that dies while it writes."""
    client = fast()
    before = answered(client)

    client.send()
    client.ends.last.answer(ANSWER[:-1])
    client.ends.last.lose()

    assert answered(client) is not before


def test_a_request_that_is_not_answered_in_time_ends_a_generation() -> None:
    """The host may be gone, with nobody left to close the connection."""
    client = fast()
    before = answered(client)

    client.send()
    client.clock.advance(8)

    assert before.is_over


def test_a_connection_that_cannot_be_made_ends_a_generation() -> None:
    """Nobody is there."""
    client = fast()
    before = client.upstream.generations.source

    client.ends.connected = fail(ConnectError())
    client.send()

    assert before.is_over


def test_a_generation_ends_with_its_last_connection() -> None:
    """A server may be replaced while nobody asks for anything."""
    client = fast()
    before = answered(client)

    client.ends.last.lose()

    assert answered(client) is not before


@pytest.mark.parametrize("by_server", [True, False])
def test_a_server_that_closes_its_last_connection_is_asked_again(
    *, by_server: bool
) -> None:
    """It may be gone; that we need a connection no more says nothing."""
    client, doubts = fast(), list[None]()
    answered(client)
    client.upstream.generations.doubt = lambda: doubts.append(None)

    if not by_server:
        client.close()
    client.ends.last.lose()

    assert len(doubts) == by_server
    assert client.upstream.generations.source.generation == 1


def test_a_generation_goes_on_with_another_connection() -> None:
    """Where one is open, the process that it leads to lives."""
    client = fast()
    first, second = client.send(), client.send()
    for end in client.ends.all:
        end.answer(ANSWER)
    assert source_of(first) is source_of(second)

    client.ends.all[0].lose()

    assert answered(client) is source_of(first)


def test_a_server_that_keeps_no_connection_has_one_generation() -> None:
    """Its parts of a call could not be joined otherwise."""
    client = fast()
    before = answered(client, LAST)
    client.ends.last.lose()

    assert answered(client, LAST) is before


def test_an_answer_that_ends_with_its_connection_has_a_source() -> None:
    """As those without a length."""
    client = fast()
    asked = client.send()

    client.ends.last.answer(WITHOUT_LENGTH)
    client.ends.last.lose()

    assert source_of(asked) is client.upstream.generations.source


def test_a_connection_that_has_answered_leads_to_what_it_led_to() -> None:
    """Whatever becomes of others: it is used no more, and its answer is known."""
    client = fast()
    before = answered(client)
    asked, _breaks = client.send(), client.send()

    client.ends.all[1].lose()
    client.ends.all[0].answer(ANSWER)

    assert source_of(asked) is before
    assert client.ends.all[0].is_given_up


def test_a_first_answer_after_the_end_of_a_generation_is_of_none() -> None:
    """Its connection may have been made to the next server already."""
    client = fast()
    before = client.upstream.generations.source
    asked, _breaks = client.send(), client.send()

    client.ends.all[1].lose()
    client.ends.all[0].answer(ANSWER)

    assert source_of(asked) not in {before, client.upstream.generations.source}
    assert source_of(asked).is_over
    assert source_of(asked).identity is None


def test_treq_tells_the_generation_as_well() -> None:
    """As far as connections break."""
    client = treq()
    before = answered(client)
    assert answered(client) is before

    client.send()
    client.ends.last.lose()

    assert answered(client) is not before


def test_an_answer_by_treq_after_the_end_of_a_generation_is_of_none() -> None:
    """It is not known which connection it came on."""
    client = treq()
    before = client.upstream.generations.source
    asked, _breaks = client.send(), client.send()

    client.ends.all[1].lose()
    client.ends.all[0].answer(ANSWER)

    assert source_of(asked) is not before
    assert source_of(asked).is_over


# What a server says


def test_the_same_model_again_changes_nothing() -> None:
    """Rows before and after may be joined."""
    generations = Generations()
    source = generations.source

    generations.settle(source, A)
    generations.settle(source, Identity(models=("a",), sha="1"))

    assert generations.source is source
    assert source.identity == Identity(models=("a",), sha="1")


def test_another_model_begins_a_generation() -> None:
    """The rows of the last one are of the first model, or of the second."""
    generations = Generations()
    before = generations.source

    generations.settle(before, A)
    generations.settle(before, B)

    assert (before.identity, before.later) == (A, B)
    assert before.is_over
    assert generations.source.identity == B


def test_other_numbers_begin_a_generation_only_if_they_count() -> None:
    """As MODEL_STRICT says."""
    half, whole = (Identity(models=("a",), dtype=each) for each in ("f16", "f32"))
    lax, strict = Generations(), Generations(strict=True)
    for generations in (lax, strict):
        generations.settle(generations.source, half)
        generations.settle(generations.source, whole)

    assert lax.source.generation == 0
    assert strict.source.generation == 1


def test_what_a_last_answer_says_is_heard_before_a_generation_ends() -> None:
    """Who waits for it would be told that it can never be known."""
    client = fast()
    before = answered(client)
    known = before.known()
    identities = list[Identity | None]()
    known.addCallback(lambda _: identities.append(before.identity))

    asked = client.send()
    asked.reply.addCallback(lambda _: client.upstream.generations.settle(before, A))
    client.ends.last.answer(LAST)

    assert before.is_over
    assert identities == [A]


def test_a_server_that_names_no_model_names_none_after_a_pause() -> None:
    """Its rows are joined without asking again, as those before were."""
    generations = Generations()
    source, connection = generations.source, object()
    generations.connected(connection)
    source.keeps_connections = True
    generations.settle(source, NO_IDENTITY)

    generations.lost(source, connection)

    assert source.is_over
    assert generations.source.identity == NO_IDENTITY


def test_a_server_that_names_no_model_is_asked_after_a_broken_connection() -> None:
    """It may have been replaced by one that does."""
    generations = Generations()
    source, connection = generations.source, object()
    generations.connected(connection)
    generations.settle(source, NO_IDENTITY)

    generations.broke(source, connection)

    assert generations.source.identity is None


def test_a_server_that_said_nothing_with_its_last_answer_names_no_model() -> None:
    """Its connection is closed when that has been understood."""
    generations = Generations()
    source = generations.source
    generations.end(source)

    generations.settle(source, NO_IDENTITY)

    assert generations.source.identity == NO_IDENTITY
