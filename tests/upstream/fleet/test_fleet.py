"""Several servers as one: who gets a request, and what is sent elsewhere."""

import pytest
from twisted.internet.defer import CancelledError
from twisted.logger import capturedLogs, formatEvent

from abproxy.errors import (
    CannotConnect,
    ConnectionBroken,
    HandshakeFailed,
    UpstreamTimeout,
)
from abproxy.upstream.server_info import ServerInfo
from support.fleet import Servers, request_of, say
from support.upstream import reply

AWAY = CannotConnect("cannot reach the inference server: refused")
FULL = reply(429, b'{"error_type":"Overloaded"}')


def test_a_request_goes_where_nothing_is_in_flight() -> None:
    """One server each, before any has two."""
    servers = Servers(3)

    for _ in range(3):
        servers.send()

    assert servers.where() == "abc"


def test_servers_that_are_alike_share_what_comes_by_chance() -> None:
    """With nothing in flight none is the first."""
    servers = Servers(3)
    seen = ""

    for _ in range(30):
        servers.send()
        seen += servers.where()
        servers.answer(servers.where())

    assert set(seen) == {"a", "b", "c"}


def test_a_fast_server_gets_more() -> None:
    """It has answered what it has sooner."""
    servers = Servers(2)
    servers.learn_speeds(a=0.1, b=0.4)

    for _ in range(10):
        servers.send()

    assert servers.where() == "aaaaaaaabb"


def test_a_larger_request_counts_for_more() -> None:
    """Where it is, others go only when as much is elsewhere."""
    servers = Servers(2)
    servers.send(size=2000)
    large = servers.where()

    for _ in range(5):
        servers.send()

    assert servers.batches(large)[1:] == []


def test_weights_tell_the_speed_as_long_as_none_is_measured() -> None:
    """The operator knows the machines."""
    servers = Servers(2, weights=[3, 1])

    for _ in range(8):
        servers.send()

    assert servers.where() == "aaaaaabb"


def test_what_is_measured_counts_in_the_end() -> None:
    """A weight that promises too much is outlived."""
    servers = Servers(2, weights=[3, 1])
    servers.learn_speeds(a=0.4, b=0.1)
    servers.members["b"].work.share = 0.0

    servers.send()
    servers.send()

    assert servers.where() == "bb"


def shares(servers: Servers, requests: int = 400) -> dict[str, float]:
    """Return which part each server gets of requests that come one by one."""
    got = dict.fromkeys(servers.ends, 0)
    for _ in range(requests):
        servers.send()
        [letter] = servers.where()
        got[letter] += 1
        servers.clock.advance(0.1)
        servers.answer(letter)
    return {letter: each / requests for letter, each in got.items()}


def test_who_has_the_smaller_weight_never_gets_more_than_that() -> None:
    """Though it is as fast: it may be meant for something else."""
    servers = Servers(3, weights=[1, 1, 0.2])
    servers.learn_speeds()

    assert shares(servers)["c"] < 0.2 / 2.2 + 0.03


def test_servers_of_one_weight_get_what_they_can_do() -> None:
    """Nothing but speed bounds them."""
    servers = Servers(2)
    servers.learn_speeds(a=0.1, b=0.3)

    assert shares(servers)["a"] > 0.9


def test_who_has_been_away_begins_with_a_small_share() -> None:
    """It grows with time."""
    servers = Servers(2)
    servers.learn_speeds()
    member = servers.members["a"]
    member.standing.lost("it is away")
    servers.clock.advance(2)
    servers.answer_question("a")
    assert servers.fleet.takes_part(member)

    assert shares(servers, 20)["a"] <= 0.2
    assert 0.35 < shares(servers, 200)["a"] < 0.65


def test_a_new_server_gets_something_at_once() -> None:
    """While nothing is known of it."""
    servers = Servers(2)
    servers.fleet.start()
    servers.learn_speeds()

    servers.add("c")
    for _ in range(10):
        servers.send()

    assert 0 < servers.where().count("c") <= 2
    servers.fleet.stop()


def test_no_server_gets_more_than_its_permits_while_another_has_room() -> None:
    """However fast it is."""
    servers = Servers(2, permits=64)
    servers.learn_speeds(a=0.1, b=0.9)

    for _ in range(4):
        servers.send(32)

    assert servers.where() == "aabb"


def test_each_server_has_the_permits_that_it_says() -> None:
    """A small one fills up first."""
    servers = Servers(2)
    say(servers, "a", max_inputs_in_flight=32)

    for _ in range(5):
        servers.send(32)

    assert servers.where() == "abbbb"


# What cannot be sent


@pytest.mark.parametrize("error", [AWAY, HandshakeFailed("no TLS")])
def test_what_could_not_be_sent_goes_elsewhere_at_once(error: Exception) -> None:
    """Nobody hears of it."""
    servers = Servers(2)
    asked = servers.send()
    first = servers.where()

    servers.fail(first, error)

    assert servers.where() == ("b" if first == "a" else "a")
    servers.answer(servers.where())
    assert asked.status == 200
    assert servers.is_at_rest


def test_a_request_that_is_sent_again_says_so() -> None:
    """Traces tell how often."""
    servers = Servers(2)
    servers.send()
    first = servers.where()

    servers.fail(first, AWAY)

    [again] = servers.batches(servers.where())
    assert again.request.resends == 1


def test_who_cannot_be_reached_gets_nothing_more() -> None:
    """Until it has answered a question."""
    servers = Servers(2)
    servers.send()
    first = servers.where()
    servers.fail(first, AWAY)
    other = servers.where()

    for _ in range(3):
        servers.send()

    assert servers.where() == other * 4


def test_with_all_away_the_caller_hears_why() -> None:
    """The error is the server's, and not of our making."""
    servers = Servers(2)
    asked = servers.send()

    for _ in range(2):
        servers.fail(servers.where(), AWAY)

    assert asked.error is AWAY
    assert servers.is_at_rest


def test_with_all_out_one_is_tried_all_the_same() -> None:
    """In turns: a guess is better than no answer."""
    servers = Servers(2)
    servers.send()
    for _ in range(2):
        servers.fail(servers.where(), AWAY)

    asked = servers.send()
    first = servers.where()
    servers.fail(first, AWAY)
    servers.send()

    assert asked.error is AWAY
    assert servers.where() not in {first, ""}


def test_an_answer_of_one_that_was_away_brings_it_back() -> None:
    """Nothing else needs to be asked."""
    servers = Servers(1)
    servers.send()
    servers.fail("a", AWAY)

    servers.send()
    servers.answer("a")

    assert servers.fleet.takes_part(servers.members["a"])


def test_a_connection_that_breaks_is_told_to_the_caller() -> None:
    """It knows what may have broken it."""
    servers = Servers(2)
    asked = servers.send()
    broken = ConnectionBroken("it broke")

    servers.fail(servers.where(), broken)

    assert asked.error is broken


def test_after_a_broken_connection_others_get_what_follows() -> None:
    """The server may be gone."""
    servers = Servers(2)
    servers.send()
    first = servers.where()
    servers.fail(first, ConnectionBroken("it broke"))

    for _ in range(3):
        servers.send()

    assert first not in servers.where()


def test_a_question_of_ours_goes_elsewhere_even_if_its_connection_breaks() -> None:
    """To ask twice changes nothing."""
    servers = Servers(2)
    asked: list[object] = []
    servers.fleet.ask(request_of()).addCallback(asked.append)

    servers.fail(servers.where(), ConnectionBroken("it broke"))
    servers.answer(servers.where())

    assert asked


# What is refused


@pytest.mark.parametrize("status", [429, 503, 502, 504])
def test_what_one_server_refuses_at_once_goes_elsewhere(status: int) -> None:
    """It has no room, or its gateway does not reach it."""
    servers = Servers(2)
    asked = servers.send()

    servers.answer(servers.where(), reply(status, b"no"))
    servers.answer(servers.where())

    assert asked.status == 200
    assert servers.is_at_rest


def test_a_gateway_that_has_waited_is_believed() -> None:
    """The work was done there, perhaps, and may be as late elsewhere."""
    servers = Servers(2)
    asked = servers.send()
    servers.clock.advance(2)

    servers.answer(servers.where(), reply(504, b"late"))

    assert asked.status == 504


def test_an_error_of_the_model_is_told() -> None:
    """It would be the same elsewhere."""
    servers = Servers(2)
    asked = servers.send()

    servers.answer(servers.where(), reply(500, b"no"))

    assert asked.status == 500


@pytest.mark.parametrize("body", [b"[]", b"[[1],[2]]", b"oops", b""])
def test_what_one_server_answers_with_other_rows_goes_elsewhere(body: bytes) -> None:
    """A call that is alone in its request would hear it as it is."""
    servers = Servers(2)
    call = servers.send()
    wrong = servers.where()
    servers.answer(wrong, reply(200, body))

    servers.answer(servers.where(), reply(200, b"[[7]]"))

    assert [each.body for each in call.results] == [b"[[7]]"]


def test_rows_that_all_servers_give_are_told_as_they_are() -> None:
    """The client may know a form that we do not."""
    servers = Servers(2)
    call = servers.send()
    servers.answer(servers.where(), reply(200, b"oops"))

    servers.answer(servers.where(), reply(200, b"oops"))

    assert [each.body for each in call.results] == [b"oops"]


def test_refusals_are_sent_elsewhere_for_one_request_in_five() -> None:
    """With all full, more requests would only make it worse."""
    servers = Servers(2)
    sent = 200

    for _ in range(sent):
        servers.send()
        while letters := servers.where():
            servers.answer(letters[0], FULL)

    requests = sum(len(each.sent) for each in servers.ends.values())
    assert requests <= sent * 1.2 + 10


def test_where_little_is_sent_every_refusal_is_sent_elsewhere() -> None:
    """One request in five seconds more is no load for any server."""
    servers = Servers(2)
    for _ in range(40):
        servers.clock.advance(5)
        asked = servers.send_to("a")
        servers.answer("a", FULL)
        servers.answer("b")

        assert asked.status == 200
        servers.members["a"].standing.failures = 0


def test_a_server_without_room_is_left_out_for_a_moment() -> None:
    """The others have room."""
    servers = Servers(2)
    servers.send()
    first = servers.where()
    servers.answer(first, FULL)

    for _ in range(3):
        servers.send()
    assert first not in servers.where()

    servers.clock.advance(0.06)
    servers.send()
    assert first in servers.where()


def test_a_refusal_tells_more_than_that_others_are_away() -> None:
    """Who is full may have room later."""
    servers = Servers(2)
    asked = servers.send()
    servers.answer(servers.where(), FULL)

    servers.fail(servers.where(), AWAY)

    assert asked.results == [FULL]


# Time, and callers who leave


def test_to_cancel_is_to_cancel_what_is_under_way() -> None:
    """Wherever that is."""
    servers = Servers(2)
    asked = servers.send()
    first = servers.where()
    servers.fail(first, AWAY)
    [open_now] = servers.batches(servers.where())

    asked.answer.cancel()

    assert isinstance(asked.error, CancelledError)
    assert open_now.was_cancelled
    assert servers.is_at_rest


def test_all_attempts_together_have_the_time_of_one() -> None:
    """The caller waits no longer because there are more servers."""
    servers = Servers(2)
    asked = servers.send()
    servers.clock.advance(5)
    servers.fail(servers.where(), AWAY)

    servers.clock.advance(1.9)
    assert not asked.results
    servers.clock.advance(0.2)

    assert isinstance(asked.error, UpstreamTimeout)
    assert "within 7 seconds" in str(asked.error)


# Who comes and goes


def test_a_server_that_is_removed_answers_what_it_has() -> None:
    """And gets nothing more."""
    servers = Servers(2)
    asked = [servers.send(), servers.send()]
    gone = servers.fleet.remove(servers.members["a"])
    left: list[object] = []
    gone.addCallback(left.append)
    servers.send()

    assert servers.where() == "abb"
    assert not left

    servers.answer("a")
    assert any(each.status == 200 for each in asked)
    assert left


def test_a_server_that_is_added_gets_work() -> None:
    """At once, if the others are busy."""
    servers = Servers(1)
    servers.send()

    servers.add("z")
    servers.send()

    assert servers.where() == "az"


def test_a_server_that_is_drained_gets_nothing_until_it_may() -> None:
    """The operator says so."""
    servers = Servers(2)
    servers.fleet.drain(servers.members["a"].address)
    servers.send()
    assert servers.where() == "b"

    servers.fleet.drain(servers.members["a"].address, is_drained=False)
    servers.send()
    assert servers.where() == "ab"


def test_a_server_that_does_not_fit_is_never_used() -> None:
    """Not even if all others are out: its rows would be wrong."""
    servers = Servers(2)
    servers.members["a"].refused = "it has another model"
    servers.send()
    servers.fail("b", AWAY)

    asked = servers.send()

    assert servers.where() == "b"
    servers.fail("b", AWAY)
    assert asked.error is AWAY


def test_with_no_server_at_all_nothing_can_be_reached() -> None:
    """A name may have no address for a while."""
    servers = Servers(0)

    asked = servers.send()

    assert isinstance(asked.error, CannotConnect)


# What is known of all


def test_a_batch_is_what_the_smallest_takes() -> None:
    """It may be sent to any; and in flight is what they take together."""
    servers = Servers(2)

    say(servers, "a", model="m", max_batch_inputs=32, max_inputs_in_flight=100)
    say(servers, "b", model="m", max_batch_inputs=16, max_inputs_in_flight=50)

    assert servers.fleet.info == ServerInfo(
        model="m", max_batch_inputs=16, max_inputs_in_flight=150
    )


def test_what_is_known_stays_known_while_its_server_is_out() -> None:
    """The only other one has just come, and has not been asked yet."""
    servers = Servers(2)
    say(servers, "a", model="m", max_batch_inputs=16)

    servers.send_to("a")
    servers.fail("a", AWAY)

    assert servers.fleet.info.max_batch_inputs == 16


def test_who_has_to_know_hears_how_many_take_part() -> None:
    """What is in flight is for those."""
    servers = Servers(3)
    heard: list[int] = []
    servers.fleet.on_resize = lambda: heard.append(len(servers.fleet.infos))

    servers.send()
    servers.fail(servers.where(), AWAY)

    assert heard == [2]


def test_the_status_lists_each_server() -> None:
    """With what it has, and why it is out."""
    servers = Servers(2)
    servers.send()
    first = servers.where()
    servers.fail(first, AWAY)

    status = servers.fleet.describe()

    assert status["url"] == "http://a,http://b"
    out = {each["address"]: each["why"] for each in status["servers"]}
    assert out[first] == str(AWAY)
    assert sum(each["requests_in_flight"] for each in status["servers"]) == 1


def test_it_is_alive_if_any_server_is() -> None:
    """One that does not answer says nothing of the others."""
    servers = Servers(2)
    told: list[bool | None] = []
    servers.fleet.is_alive().addCallback(told.append)

    for letter in ("a", "b") * 2:
        for asked in servers.questions(letter)[:1]:
            if len(servers.ends["a"].sent) + len(servers.ends["b"].sent) == 1:
                asked.fail(AWAY)
            else:
                asked.done.callback(reply(200, b""))

    assert told == [True]


def test_it_is_not_alive_if_none_is() -> None:
    """All were asked."""
    servers = Servers(2)
    told: list[bool | None] = []
    servers.fleet.is_alive().addCallback(told.append)

    for _ in range(2):
        for letter in servers.ends:
            for asked in servers.questions(letter)[:1]:
                asked.fail(AWAY)

    assert told == [False]


def test_the_log_says_which_server_it_is_about() -> None:
    """There are others."""
    servers = Servers(2)
    with capturedLogs() as logged:
        servers.send_to("a")
        servers.fail("a", AWAY)
        servers.answer_question("a")

    said = [formatEvent(event) for event in logged]
    assert all("http://a" in each for each in said)
    assert len(said) == 3
    servers.answer("b")


@pytest.mark.parametrize("how", ["out", "drained", "removed"])
def test_what_is_in_flight_where_nothing_is_sent_any_more_is_told_apart(
    how: str,
) -> None:
    """The others may have as much as they take, all the same."""
    servers = Servers(2)
    member = servers.members["a"]
    servers.send_to("b")
    servers.send_to("a")
    servers.send_to("a")

    if how == "out":
        member.standing.eject("it is slow")
    elif how == "drained":
        servers.fleet.drain(member.address)
    else:
        servers.fleet.remove(member)

    assert servers.fleet.left_out() == (2, 2)


def test_with_all_out_nothing_is_told_apart() -> None:
    """They are used, as there is nothing else."""
    servers = Servers(2)
    servers.send_to("a")

    for member in servers.members.values():
        servers.fleet.drain(member.address)

    assert servers.fleet.left_out() == (0, 0)


def test_a_connection_that_breaks_is_told_where_another_could_not_be_made() -> None:
    """The request may have broken it: who sends it again has to count that."""
    servers = Servers(2)
    asked = servers.send_to("a")
    servers.fail("a", CannotConnect("refused"))
    assert servers.where() == "b"

    servers.fail("b", ConnectionBroken("it broke"))

    assert isinstance(asked.error, ConnectionBroken)
