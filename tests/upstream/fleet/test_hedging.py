"""A request that takes long is sent a second time, and the first answer counts."""

from attrs import define, field

from abproxy.errors import ConnectionBroken, UpstreamTimeout
from abproxy.events import Observer
from support.fleet import GOOD, Servers
from support.upstream import reply


@define(eq=False)
class Extra(Observer):
    """Notes requests that are sent elsewhere as well."""

    reasons: list[str] = field(factory=list)

    def extra_request(self, reason: str) -> None:
        self.reasons.append(reason)


def hedged(after: str = "1", count: int = 2) -> Servers:
    """Make servers that have answered often enough for one more request."""
    servers = Servers(count, observer=Extra())
    servers.learn_speeds()
    servers.fleet.sender.hedging.after = after
    return servers


def test_what_takes_long_is_sent_to_another_as_well() -> None:
    """The first answer counts, and the other request is cancelled."""
    servers = hedged()
    asked = servers.send_to("a")
    [slow] = servers.batches("a")

    servers.clock.advance(1)
    assert servers.where() == "ab"
    servers.answer("b")

    assert asked.status == 200
    assert slow.was_cancelled
    assert servers.is_at_rest


def test_the_one_that_was_asked_first_may_still_answer_first() -> None:
    """Then the second is cancelled."""
    servers = hedged()
    asked = servers.send_to("a")
    servers.clock.advance(1)
    [second] = servers.batches("b")

    servers.answer("a")

    assert asked.status == 200
    assert second.was_cancelled
    assert servers.is_at_rest


def test_an_error_does_not_win() -> None:
    """The other one may do better."""
    servers = hedged()
    asked = servers.send_to("a")
    servers.clock.advance(1)

    servers.answer("b", reply(500, b"no"))
    assert not asked.results
    servers.answer("a")

    assert asked.status == 200


def test_if_both_fail_an_answer_tells_more() -> None:
    """And each request has one outcome."""
    servers = hedged()
    asked = servers.send_to("a")
    servers.clock.advance(1)

    servers.answer("b", reply(500, b"no"))
    servers.fail("a", ConnectionBroken("it broke"))

    assert asked.status == 500
    assert servers.is_at_rest


def test_what_is_answered_in_time_is_sent_once() -> None:
    """No timer is left."""
    servers = hedged()
    servers.send_to("a")

    servers.answer("a")

    assert not servers.clock.getDelayedCalls()


def test_without_the_setting_nothing_is_sent_twice() -> None:
    """It costs work."""
    servers = Servers(2)
    servers.learn_speeds()
    servers.send_to("a")

    servers.clock.advance(6)

    assert servers.where() == "a"


def test_nothing_is_sent_twice_where_there_is_no_room() -> None:
    """It would only be refused."""
    servers = hedged()
    servers.permits = 1
    servers.send_to("b")
    servers.clock.advance(0.5)
    servers.send_to("a")

    servers.clock.advance(1)

    assert servers.where() == "ab"


def test_a_twentieth_is_sent_twice_at_most() -> None:
    """If all take long, more work would not help."""
    servers = hedged("0.1")

    for _ in range(200):
        servers.send()
        servers.clock.advance(0.2)
        for letter in "ab":
            while servers.batches(letter):
                servers.answer(letter)

    observer = servers.observer
    assert isinstance(observer, Extra)
    assert 8 <= len(observer.reasons) <= 200 / 20 + 2
    assert set(observer.reasons) == {"hedge"}


def test_large_ones_are_not_the_twentieth_that_is_sent_twice() -> None:
    """A caller who sends them would have all the others' work done in vain."""
    servers = hedged("0.1")
    servers.fleet.set_timeout(60)
    sent_size = 0

    for at in range(400):
        size = 20 if at % 20 else 2000
        sent_size += size + 100
        servers.send(size=size)
        servers.clock.advance(0.2 if size > 20 else 0.01)
        for letter in "ab":
            while servers.batches(letter):
                servers.answer(letter)

    whole = sum(
        len(each.request.body) + 100
        for end in servers.ends.values()
        for each in end.sent[150:]
    )
    assert sent_size < whole <= sent_size * 1.05 + 2100


def test_what_is_long_is_learnt_from_answers() -> None:
    """Longer than all but a twentieth take."""
    servers = hedged("p95")
    for at in range(100):
        servers.send_to("a")
        servers.clock.advance(1 if at % 10 else 2)
        servers.answer("a")

    servers.send_to("a")
    servers.clock.advance(1.9)
    assert servers.where() == "a"
    servers.clock.advance(0.2)

    assert servers.where() == "ab"


# What a server does not answer at all


def test_what_hangs_is_sent_to_another_when_that_is_noticed() -> None:
    """Its callers wait no longer than that."""
    servers = hedged()
    servers.fleet.sender.hedging.after = None
    asked = servers.send_to("a")
    servers.fleet.start()

    servers.clock.pump([0.5] * 13)
    assert not servers.fleet.takes_part(servers.members["a"])
    servers.answer("b")

    assert asked.status == 200
    assert servers.is_at_rest
    servers.fleet.stop()


def test_a_hang_of_all_is_no_reason_to_send_all_again() -> None:
    """A fifth of the requests at most goes elsewhere, besides the first ten."""
    servers = hedged()
    servers.fleet.sender.hedging.after = None
    asked = [servers.send_to("a") for _ in range(30)]
    servers.fleet.start()

    servers.clock.pump([0.5] * 12)

    assert len(servers.batches("b")) <= 10 + 30 / 5
    servers.clock.pump([0.5] * 3)
    assert all(isinstance(each.error, UpstreamTimeout) for each in asked)
    assert servers.is_at_rest
    servers.fleet.stop()


def looked_after() -> Servers:
    """Make servers whose speeds are known, of a fleet that looks after them."""
    servers = hedged()
    servers.fleet.sender.hedging.after = None
    servers.fleet.start()
    return servers


def answer_others(servers: Servers, seconds: float, *, beside: int = 1) -> None:
    """Let both answer other calls for so long, but not the first at server a."""
    for _ in range(round(seconds * 2)):
        asked = [servers.send_to("a"), servers.send_to("b")]
        servers.clock.advance(0.1)
        servers.batches("a")[beside].done.callback(GOOD)
        servers.batches("b")[-1].done.callback(GOOD)
        assert [each.status for each in asked] == [200, 200]
        servers.clock.advance(0.4)


def test_half_an_answer_and_no_more_is_computed_elsewhere() -> None:
    """Though its server answers others: a connection may be lost on the way."""
    servers = looked_after()
    asked = servers.send_to("a")
    answer_others(servers, 3.5)
    assert servers.where() == "ab"

    servers.answer("b")

    assert asked.status == 200
    assert servers.fleet.takes_part(servers.members["a"])
    assert servers.is_at_rest
    servers.fleet.stop()


def test_what_is_expected_to_take_long_is_waited_for() -> None:
    """Forty times as much takes so much longer."""
    servers = looked_after()
    servers.fleet.set_timeout(60)
    servers.permits = 1 << 20
    servers.send_to("a", size=5000)

    answer_others(servers, 20)

    assert servers.where() == "a"
    servers.answer("a")
    servers.fleet.stop()


def test_of_a_server_that_is_not_known_nothing_is_late() -> None:
    """It may be a large model on a small machine."""
    servers = Servers(2)
    servers.fleet.start()
    servers.send_to("a")

    servers.clock.pump([0.5] * 12)

    assert servers.where() == "a"
    servers.clock.pump([0.5] * 4)
    servers.fleet.stop()


def test_what_takes_long_again_and_again_is_sent_elsewhere_now_and_then() -> None:
    """Whoever sends such calls costs others a fifth more at most."""
    servers = looked_after()
    servers.fleet.set_timeout(60)
    servers.permits = 1 << 20

    for _ in range(100):
        servers.send_to("a")
    answer_others(servers, 6, beside=100)

    assert len(servers.batches("b")) <= 10 + 130 / 5 - 5
    while letters := servers.where():
        servers.answer(letters[0])
    servers.fleet.stop()
