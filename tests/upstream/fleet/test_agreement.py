"""Which model a fleet serves, and who is left out for having another."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from twisted.logger import capturedLogs, formatEvent

from abproxy.errors import CannotConnect, ConnectionBroken
from abproxy.upstream.fleet.agreement import GONE_S
from abproxy.upstream.server_info import ServerInfo
from support.fleet import Servers
from support.upstream import reply

AWAY = CannotConnect("cannot reach the inference server: refused")


def has(servers: Servers, letters: str, model: str, **about: Any) -> None:
    """Let servers say which model they have."""
    for letter in letters:
        upstream = servers.members[letter].upstream
        upstream.discovery.info = ServerInfo(model=model, **about)
        generations = upstream.generations
        generations.settle(generations.source, upstream.info.identity)


def is_gone(servers: Servers, letters: str) -> None:
    """Let servers be away, so that they may come back as others."""
    for letter in letters:
        member = servers.members[letter]
        member.upstream.generations.end(member.upstream.generations.source)
        member.note_failure(AWAY)


def comes_back(servers: Servers, letter: str, model: str) -> None:
    """Let a server come back, and say which model it has."""
    servers.members[letter].standing.answered()
    has(servers, letter, model)
    servers.fleet.look_again()


def taking_part(servers: Servers) -> str:
    """Return the letters of those that get work."""
    return "".join(
        letter
        for letter, member in servers.members.items()
        if servers.fleet.takes_part(member)
    )


@contextmanager
def logged() -> Iterator[list[str]]:
    """Give what is logged meanwhile."""
    lines: list[str] = []
    with capturedLogs() as events:
        yield lines
    lines += [formatEvent(event) for event in events]


def test_a_server_with_another_model_gets_nothing() -> None:
    """The log says why, once, and so does the status."""
    servers = Servers(3)
    with logged() as lines:
        has(servers, "abc", "m")
        has(servers, "b", "n")
        servers.fleet.look_again()

    why = "it has n, where m is served: it gets no calls until it has"
    assert taking_part(servers) == "ac"
    assert servers.fleet.describe()["servers"][1]["why"] == why
    assert servers.fleet.refused == 1
    assert lines == [f"The inference server http://b is left out: {why}"]


def test_it_is_taken_in_when_it_has_the_model_again() -> None:
    """Which the log says as well."""
    servers = Servers(2)
    has(servers, "a", "m")
    has(servers, "b", "n")

    with logged() as lines:
        has(servers, "b", "m")

    assert taking_part(servers) == "ab"
    assert lines == ["The inference server http://b gets calls again: it has m"]


def test_the_first_that_answers_says_what_is_served() -> None:
    """However many say something else later."""
    servers = Servers(3)

    has(servers, "b", "m")
    has(servers, "ac", "n")

    assert taking_part(servers) == "b"


def test_a_server_that_has_said_nothing_yet_waits() -> None:
    """It may have another model; it is asked."""
    servers = Servers(2)
    asked: list[None] = []
    servers.members["b"].upstream.generations.ask = lambda: asked.append(None)

    has(servers, "a", "m")
    assert taking_part(servers) == "a"
    assert asked

    has(servers, "b", "m")
    assert taking_part(servers) == "ab"


def test_as_long_as_none_has_said_anything_all_are_used() -> None:
    """There is no reason to prefer one."""
    assert taking_part(Servers(3)) == "abc"


def test_a_server_that_comes_back_waits_until_it_has_said_what_it_is() -> None:
    """Though it answers already."""
    servers = Servers(2)
    has(servers, "ab", "m")
    is_gone(servers, "b")

    servers.members["b"].standing.answered()
    servers.fleet.look_again()
    assert taking_part(servers) == "a"

    comes_back(servers, "b", "m")
    assert taking_part(servers) == "ab"


def test_a_rolling_update_to_another_model_leaves_no_gap() -> None:
    """When the last of the old ones goes, the new ones take over."""
    servers, told = Servers(3), list[ServerInfo]()
    servers.fleet.on_change = told.append
    has(servers, "abc", "m")
    for letter in "ab":
        is_gone(servers, letter)
        comes_back(servers, letter, "n")
    assert taking_part(servers) == "c"
    assert told[-1].model == "m"

    with logged() as lines:
        is_gone(servers, "c")

    assert taking_part(servers) == "ab"
    assert told[-1].model == "n"
    assert any("No server has m any more: n is served now" in each for each in lines)
    comes_back(servers, "c", "n")
    assert taking_part(servers) == "abc"


def test_one_stray_server_does_not_take_over_at_once() -> None:
    """The others restart, and come back with the model that is served."""
    servers = Servers(3)
    has(servers, "ab", "m")
    has(servers, "c", "n")

    is_gone(servers, "ab")
    servers.clock.advance(GONE_S - 1)
    assert taking_part(servers) == ""

    comes_back(servers, "a", "m")
    assert taking_part(servers) == "a"
    servers.clock.advance(GONE_S)
    assert taking_part(servers) == "a"


def test_it_takes_over_in_the_end() -> None:
    """A model that is gone for good is served by nobody."""
    servers = Servers(3)
    has(servers, "ab", "m")
    has(servers, "c", "n")

    is_gone(servers, "ab")
    servers.clock.advance(GONE_S)

    assert taking_part(servers) == "c"
    servers.fleet.stop()


@pytest.mark.parametrize(("strict", "expected"), [(False, "ab"), (True, "a")])
def test_other_numbers_are_another_model_if_they_count(
    *, strict: bool, expected: str
) -> None:
    """MODEL_STRICT."""
    servers = Servers(2)
    servers.fleet.agreement.strict = strict

    has(servers, "a", "m", dtype="float16")
    has(servers, "b", "m", dtype="float32")

    assert taking_part(servers) == expected


def test_what_is_said_of_the_model_does_not_depend_on_who_is_there() -> None:
    """Everything that is remembered would be forgotten each time."""
    servers, told = Servers(2), list[ServerInfo]()
    has(servers, "a", "m", sha="1", version="1.8")
    has(servers, "b", "m", version="1.8")
    servers.fleet.on_change = told.append

    is_gone(servers, "a")

    assert servers.fleet.info.identity == servers.fleet.agreement.served
    assert not told


def test_a_connection_that_breaks_makes_one_wait_for_its_name() -> None:
    """Another server may be at that address."""
    servers = Servers(2)
    has(servers, "ab", "m")
    servers.send()
    [letter] = servers.where()
    servers.fail(letter, ConnectionBroken("gone"))

    servers.members[letter].standing.answered()
    servers.fleet.look_again()

    assert letter not in taking_part(servers)


def test_an_answer_of_one_that_has_another_model_by_now_does_not_count() -> None:
    """It may be of either: another one of the model that is served is asked."""
    servers = Servers(2)
    has(servers, "ab", "m")
    asked = servers.send_to("b")
    has(servers, "b", "n")

    servers.answer("b")
    assert not asked.results
    servers.answer("a", reply(200, b"[[7]]"))

    assert [each.body for each in asked.results] == [b"[[7]]"]
    assert servers.is_at_rest


def sent_twice() -> tuple[Servers, Any]:
    """Send one request to both servers, of which the second then has another model."""
    servers = Servers(2)
    has(servers, "ab", "m")
    servers.learn_speeds()
    servers.fleet.sender.hedging.after = "1"
    asked = servers.send_to("a")
    servers.clock.advance(1)
    assert servers.where() == "ab"
    has(servers, "b", "n")
    return servers, asked


def test_of_two_that_are_asked_the_one_with_another_model_does_not_win() -> None:
    """It became another one while a request was sent twice."""
    servers, asked = sent_twice()

    servers.answer("b")
    assert not asked.results
    servers.answer("a", reply(200, b"[[7]]"))

    assert [each.body for each in asked.results] == [b"[[7]]"]
    assert servers.is_at_rest


def test_an_answer_of_another_model_does_not_count_where_the_others_are_full() -> None:
    """A server that has much to do computes it later; rows of another model never."""
    servers = Servers(2, permits=1)
    has(servers, "ab", "m")
    servers.send_to("a")
    asked = servers.send_to("b")
    has(servers, "b", "n")

    servers.answer("b")

    assert not asked.results
    assert servers.where() == "aa"


def test_an_answer_of_another_model_does_not_count_where_the_others_are_out() -> None:
    """The batch waits for one that is back, as it would if it came now."""
    servers = Servers(2)
    has(servers, "ab", "m")
    asked = servers.send_to("b")
    servers.members["a"].standing.eject("it fails")
    has(servers, "b", "n")

    servers.answer("b")

    assert isinstance(asked.error, CannotConnect)
    assert servers.is_at_rest


def test_an_answer_of_another_model_is_not_kept_for_when_a_second_one_fails() -> None:
    """A request was sent twice, and the connection broke of the one that has it."""
    servers, asked = sent_twice()

    servers.answer("b")
    servers.fail("a", ConnectionBroken("the connection broke"))

    assert isinstance(asked.error, ConnectionBroken)
