"""A server that answers as if it were another one, or took no key of ours."""

import pytest

from abproxy.errors import ConnectionBroken
from support.fleet import Servers
from support.upstream import reply

DENIALS = [301, 302, 307, 401, 403, 404]


def answering(count: int = 2) -> Servers:
    """Servers of which each has answered just now."""
    servers = Servers(count)
    servers.learn_speeds(20)
    return servers


@pytest.mark.parametrize("status", DENIALS)
def test_what_one_server_denies_goes_elsewhere(status: int) -> None:
    """Its callers notice nothing: others answer such calls."""
    servers = answering()
    asked = servers.send_to("a")

    servers.answer("a", reply(status, b"no"))
    servers.answer("b")

    assert asked.status == 200
    assert servers.is_at_rest


@pytest.mark.parametrize("status", DENIALS)
def test_what_all_servers_deny_is_the_callers_own_answer(status: int) -> None:
    """Its key is wrong, or what it asks for is not there."""
    servers = answering(3)
    asked = servers.send_to("a")

    for at in range(3):
        [letter] = servers.where()
        servers.answer(letter, reply(status, b"no %d" % at))

    assert [each.body for each in asked.results] == [b"no 2"]


def test_a_caller_with_a_wrong_key_puts_no_server_out() -> None:
    """Whoever is asked, and however often one is asked in a row."""
    servers = answering()

    for _ in range(50):
        asked = servers.send_to("a")
        while letters := servers.where():
            servers.answer(letters[0], reply(401, b"no"))
        assert asked.status == 401

    assert all(map(servers.fleet.takes_part, servers.members.values()))


def test_wrong_keys_are_hardly_ever_asked_about_twice() -> None:
    """A fifth of what is sent, and some of it is left for those without room."""
    servers = answering()
    sent = 200

    for _ in range(sent):
        servers.send()
        while letters := servers.where():
            servers.answer(letters[0], reply(401, b"no"))
    asked = servers.send_to("a")
    servers.answer("a", reply(429, b"no"))
    servers.answer("b")

    assert asked.status == 200
    requests = sum(len(each.sent) for each in servers.ends.values()) - 42
    assert requests <= sent * 1.2 + 10


@pytest.mark.parametrize("status", DENIALS)
def test_who_denies_what_others_answer_is_out(status: int) -> None:
    """After five times in a row, and no caller has noticed any."""
    servers = answering()
    told = []

    while servers.fleet.takes_part(servers.members["a"]):
        asked = servers.send_to("a")
        servers.answer("a", reply(status, b"no"))
        servers.answer("b")
        told.append(asked.status)

    assert told == [200] * 5
    assert servers.members["a"].standing.why == (
        f"it answers with {status}, 5 times in a row"
    )


def test_what_is_there_when_it_is_known_who_denies_goes_elsewhere_as_well() -> None:
    """However much that is: nothing has to be found out any more."""
    servers = answering()
    servers.members["b"].standing.failures = 0
    asked = [servers.send_to("a") for _ in range(30)]
    servers.answer("a", reply(404, b"no"))
    servers.answer("b")

    while servers.batches("a"):
        servers.answer("a", reply(404, b"no"))
    while servers.batches("b"):
        servers.answer("b")

    assert {each.status for each in asked} == {200}


def test_who_has_answered_no_such_call_is_not_asked() -> None:
    """It might have no such route either, and nothing tells who is right."""
    servers = Servers(2)
    asked = servers.send_to("a")

    servers.answer("a", reply(404, b"no"))

    assert asked.status == 404
    assert not servers.where()


def test_an_answer_of_long_ago_is_no_reason_to_ask() -> None:
    """The server may have become another one."""
    servers = answering()
    servers.clock.advance(601)
    asked = servers.send_to("a")

    servers.answer("a", reply(404, b"no"))

    assert asked.status == 404


def test_a_server_with_no_room_for_it_is_asked_all_the_same() -> None:
    """A refusal is tried again later, but a wrong answer would stay."""
    servers = answering()
    servers.permits = 1
    servers.send_to("b")
    asked = servers.send_to("a")

    servers.answer("a", reply(404, b"no"))
    servers.answer("b")
    servers.answer("b")

    assert asked.status == 200


def test_an_error_after_a_denial_is_what_the_caller_hears() -> None:
    """It is tried again, which a denial is not."""
    servers = answering()
    asked = servers.send_to("a")
    servers.answer("a", reply(401, b"no"))

    broken = ConnectionBroken("it broke")
    servers.fail("b", broken)

    assert asked.error is broken
