"""Servers that are out, what brings them back, and how much they get then."""

from collections.abc import Iterator
from itertools import pairwise

import pytest

from abproxy.errors import CannotConnect, ConnectionBroken, UpstreamTimeout
from support.fleet import Servers
from support.upstream import reply

AWAY = CannotConnect("cannot reach the inference server: refused")
BROKEN = ConnectionBroken("the connection broke")


def one_away(error: Exception = AWAY) -> Servers:
    """Two servers, of which a is away."""
    servers = Servers(2)
    servers.send_to("a")
    servers.fail("a", error)
    return servers


@pytest.mark.parametrize("error", [AWAY, BROKEN])
def test_who_may_be_away_is_asked_at_once(error: Exception) -> None:
    """Perhaps nothing is wrong."""
    servers = one_away(error)

    assert len(servers.questions("a")) == 1


@pytest.mark.parametrize("status", [200, 404, 401])
def test_any_answer_brings_a_server_back(status: int) -> None:
    """Not all have such a route."""
    servers = one_away()

    servers.answer_question("a", status)

    assert servers.fleet.takes_part(servers.members["a"])
    servers.clock.advance(60)
    assert not servers.questions("a")


@pytest.mark.parametrize("status", [502, 503, 504])
def test_the_word_of_a_gateway_is_no_answer(status: int) -> None:
    """Nor is that of a server which is not ready."""
    servers = one_away()

    servers.answer_question("a", status)

    assert not servers.fleet.takes_part(servers.members["a"])


def test_who_does_not_answer_is_asked_again_and_again() -> None:
    """Soon at first, and then twice a second, so that a restart is noticed."""
    servers = one_away()
    asked_at = []

    for _ in range(8):
        while not servers.questions("a"):
            servers.clock.advance(0.01)
        asked_at.append(servers.clock.seconds())
        servers.questions("a")[0].fail(AWAY)

    pauses = [round(later - earlier, 1) for earlier, later in pairwise(asked_at)]
    assert pauses == [0.1, 0.1, 0.2, 0.4, 0.5, 0.5, 0.5]


def test_a_question_that_is_never_answered_is_given_up() -> None:
    """And asked again: the server may have been restarted meanwhile."""
    servers = one_away()
    [first] = servers.questions("a")

    servers.clock.advance(5)
    servers.clock.advance(1)

    assert first.was_cancelled
    assert len(servers.questions("a")) == 1


def fail(servers: Servers, answer: object, times: int = 1) -> None:
    """Let server a fail, with a status or an error."""
    for _ in range(times):
        servers.send_to("a")
        if isinstance(answer, Exception):
            servers.fail("a", answer)
        else:
            servers.answer("a", reply(int(str(answer)), b"no"))


@pytest.mark.parametrize("answer", [500, 424, UpstreamTimeout("too late")])
def test_who_fails_five_times_in_a_row_is_out(answer: object) -> None:
    """Others may do better."""
    servers = Servers(2)
    fail(servers, answer, times=4)
    assert servers.fleet.takes_part(servers.members["a"])

    fail(servers, answer)

    assert not servers.fleet.takes_part(servers.members["a"])


@pytest.mark.parametrize("status", [429, 503])
def test_who_has_no_room_with_nothing_to_do_is_out(status: int) -> None:
    """Its quota is used up, or what is behind it is gone: more tries are in vain."""
    servers = Servers(2)

    fail(servers, status, times=12)

    assert not servers.fleet.takes_part(servers.members["a"])


@pytest.mark.parametrize("status", [429, 503])
def test_who_has_no_room_beside_its_work_is_not(status: int) -> None:
    """It is full, and has room as soon as it has answered."""
    servers = Servers(2)
    servers.send_to("a")

    for _ in range(10):
        servers.send_to("a")
        servers.batches("a")[-1].done.callback(reply(status, b"no"))

    assert servers.fleet.takes_part(servers.members["a"])


@pytest.mark.parametrize("status", [400, 413, 422])
def test_what_callers_do_wrong_puts_no_server_out(status: int) -> None:
    """It would be refused elsewhere as well."""
    servers = Servers(2)

    fail(servers, status, times=10)

    assert servers.fleet.takes_part(servers.members["a"])


def test_a_good_answer_ends_the_row() -> None:
    """Nine of ten may be good."""
    servers = Servers(2)
    fail(servers, 500, times=4)
    servers.send_to("a")
    servers.answer("a")

    fail(servers, 500, times=4)

    assert servers.fleet.takes_part(servers.members["a"])


def test_the_last_one_is_not_put_out_for_its_errors() -> None:
    """Whatever is wrong, nothing else could answer."""
    servers = Servers(1)

    fail(servers, 500, times=10)

    assert servers.fleet.takes_part(servers.members["a"])


@pytest.mark.parametrize("status", [500, 401, 404])
def test_what_fails_everywhere_puts_no_server_out(status: int) -> None:
    """It is due to what is asked: some servers answer a text too long with 500."""
    servers = Servers(2)

    for _ in range(30):
        servers.send()
        servers.answer(servers.where(), reply(status, b"no"))

    assert all(map(servers.fleet.takes_part, servers.members.values()))


def out_again(servers: Servers) -> float:
    """Let a fail until it is out, and return for how long it is."""
    began_at = servers.clock.seconds()
    member = servers.members["a"]
    fail(servers, 500)
    assert not servers.fleet.takes_part(member)
    while not servers.questions("a"):
        servers.clock.advance(0.1)
    servers.answer_question("a")
    assert servers.fleet.takes_part(member)
    return round(servers.clock.seconds() - began_at)


def test_who_fails_again_is_out_for_longer() -> None:
    """At most for half a minute; one more failure is enough."""
    servers = Servers(2)
    fail(servers, 500, times=4)

    pauses = [out_again(servers) for _ in range(7)]

    assert pauses == [1, 2, 4, 8, 16, 30, 30]


def test_who_was_good_for_long_is_out_for_a_moment() -> None:
    """An old failure is forgotten."""
    servers = Servers(2)
    fail(servers, 500, times=4)
    for _ in range(4):
        out_again(servers)
    servers.clock.advance(120)

    assert out_again(servers) == 1


def test_nothing_is_asked_when_the_fleet_has_stopped() -> None:
    """No timer is left, and no question open."""
    servers = one_away()
    servers.answer("b")

    servers.fleet.stop()

    assert not servers.questions("a")
    assert not servers.clock.getDelayedCalls()


# What nobody tells


@pytest.fixture
def running() -> Iterator[Servers]:
    """Three servers whose speeds are known, of a fleet that looks after them."""
    servers = Servers(3)
    servers.learn_speeds()
    servers.fleet.start()
    for letter in servers.ends:
        _answer_questions(servers, letter)
    yield servers
    for letter in servers.ends:
        while servers.batches(letter):
            servers.answer(letter)
    servers.fleet.stop()
    assert not servers.clock.getDelayedCalls()


def _answer_questions(servers: Servers, letter: str) -> None:
    while servers.questions(letter):
        servers.answer_question(letter, 404)


def test_who_has_nothing_to_do_is_asked_now_and_then(running: Servers) -> None:
    """So that its end is noticed before it is needed."""
    running.clock.pump([0.5] * 19)
    assert not running.questions("a")

    running.clock.pump([0.5] * 2)
    running.questions("a")[0].fail(AWAY)

    assert not running.fleet.takes_part(running.members["a"])


def test_who_is_late_is_asked(running: Servers) -> None:
    """It may hang; if it answers all the same, it may go on."""
    running.send_to("a")

    running.clock.pump([0.5] * 3)

    assert running.questions("a")
    assert not running.questions("b")
    running.answer_question("a")
    assert running.fleet.takes_part(running.members["a"])


def test_who_is_late_and_does_not_answer_is_out(running: Servers) -> None:
    """Nothing more is sent there."""
    running.send_to("a")
    running.clock.pump([0.5] * 3)

    running.clock.advance(5)

    assert not running.fleet.takes_part(running.members["a"])


def test_who_takes_far_longer_than_the_others_is_out(running: Servers) -> None:
    """Its callers would wait for nothing else."""
    member, rounds = running.members["a"], 0
    while running.fleet.takes_part(member):
        rounds += 1
        running.send_to("a")
        running.clock.advance(0.5)
        running.answer("a")
        for letter in "bc":
            running.send_to(letter)
            running.clock.advance(0.1)
            running.answer(letter)
        for letter in "abc":
            _answer_questions(running, letter)

    assert rounds < 20
    assert member.standing.why == "it takes far longer than the others"


def test_who_answers_nothing_but_questions_is_out(running: Servers) -> None:
    """Its model hangs, and only the rest of it lives."""
    running.send_to("a")

    for _ in range(8):
        running.clock.advance(0.5)
        for letter in "abc":
            _answer_questions(running, letter)

    assert not running.fleet.takes_part(running.members["a"])


def test_who_answers_others_is_not_out_for_what_takes_long(running: Servers) -> None:
    """Else whoever sends what takes long would have all servers left out."""
    running.send_to("a")  # stays there

    for _ in range(40):
        running.clock.advance(0.3)
        for letter in "abc":
            running.send_to(letter)
        running.clock.advance(0.1)
        running.batches("a")[-1].done.callback(reply(200, b"[[1]]"))
        for letter in "bc":
            running.answer(letter)
        for letter in "abc":
            _answer_questions(running, letter)
        assert running.fleet.takes_part(running.members["a"])


def test_who_answers_others_gets_its_share_beside_what_takes_long(
    running: Servers,
) -> None:
    """What one caller sends costs the others no server."""
    running.send_to("a")  # stays there
    for _ in range(40):
        running.send_to("a")
        running.clock.advance(0.1)
        running.batches("a")[-1].done.callback(reply(200, b"[[1]]"))

    for _ in range(6):
        running.send()

    assert running.where().count("a") > 1
    for letter in "abc":
        _answer_questions(running, letter)


def test_who_has_much_to_do_is_not_out_for_that(running: Servers) -> None:
    """As much would take the others as long: a call of many long texts."""
    running.fleet.set_timeout(60)
    running.send_to("a", size=5000)

    for _ in range(8):
        running.clock.advance(0.5)
        for letter in "abc":
            _answer_questions(running, letter)

    assert running.fleet.takes_part(running.members["a"])


def test_who_answers_little_beside_much_is_not_out(running: Servers) -> None:
    """What it has in flight is work as well, though nothing of it is answered yet."""
    running.fleet.set_timeout(60)
    running.send_to("a", size=5000)

    for _ in range(10):
        running.send_to("a")
        running.clock.advance(0.1)
        running.batches("a")[-1].done.callback(reply(200, b"[[1]]"))
        running.clock.advance(0.4)
        assert running.fleet.takes_part(running.members["a"])


def test_who_takes_twice_as_long_is_not(running: Servers) -> None:
    """It gets less to do, and that is enough."""
    for _ in range(20):
        running.send_to("a")
        running.clock.advance(0.25)
        running.answer("a")
        for letter in "bc":
            running.send_to(letter)
            running.clock.advance(0.1)
            running.answer(letter)

    assert running.fleet.takes_part(running.members["a"])


def test_of_a_server_that_is_late_less_is_expected(running: Servers) -> None:
    """Before it has answered: it has become ten times slower."""
    for letter in "abc":
        running.send_to(letter)
    for _ in range(5):
        running.clock.advance(0.1)
        for letter in "bc":
            running.answer(letter)
            running.send_to(letter)

    for _ in range(6):
        running.send()

    assert running.where().count("a") == 1
    for letter in "abc":
        _answer_questions(running, letter)


# Answers that are no answers


def test_who_answers_with_wrong_rows_is_out(running: Servers) -> None:
    """It is as quick as the others, and of no use."""
    member, answers = running.members["a"], 0
    while running.fleet.takes_part(member):
        answers += 1
        running.send_to("a")
        running.answer("a")
        member.upstream.generations.source.blame()

    assert answers < 10
    assert member.standing.why == "its answers cannot be shared out"


def test_wrong_rows_from_everywhere_put_none_out(running: Servers) -> None:
    """They are due to what is asked."""
    for _ in range(20):
        for letter in "abc":
            running.send_to(letter)
            running.answer(letter)
            running.members[letter].upstream.generations.source.blame()

    assert all(map(running.fleet.takes_part, running.members.values()))
