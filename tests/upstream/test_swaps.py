"""A server that is replaced by another model at any moment mixes no rows."""

from collections.abc import Sequence
from typing import Any

import msgspec
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from abproxy.http.messages import Response
from abproxy.reuse.entry import Keys
from abproxy.reuse.inflight import InFlight
from abproxy.reuse.memory import MemoryCache
from abproxy.reuse.rows import Submit
from abproxy.reuse.store import Store
from abproxy.upstream.client import Upstream
from abproxy.upstream.fast.client import FastClient
from abproxy.upstream.fast.connection import ConnectionPool
from abproxy.upstream.identity import Source
from abproxy.upstream.joining import Joining
from abproxy.upstream.server_info import ServerInfo
from support.batching import Harness, Outcome, call_of, harness
from support.upstream import make_upstream
from upstream.clients import End

ROUNDS = 400


class Connection(End):
    """A connection to one process."""

    model: int = 0
    written: bytes = b""

    @property
    def is_asked(self) -> bool:
        """Whether it has a request that is not answered."""
        self.written += self.asked()
        return bool(self.written) and not self.disconnecting

    def serve(self) -> None:
        """Answer the request as the process does."""
        head, _, body = self.written.partition(b"\r\n\r\n")
        self.written = b""
        if head.startswith(b"POST"):
            inputs = msgspec.json.decode(body)["inputs"]
            told: Any = [[self.model, int(text)] for text in inputs]
        else:
            limits = {"max_client_batch_size": 32, "max_concurrent_requests": 512}
            told = {"model_id": f"m{self.model}", **limits}
        data = msgspec.json.encode(told)
        self.answer(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data), data)


@implementer(IStreamClientEndpoint)
@define(eq=False)
class Address:
    """Where one process after the other listens."""

    model: int = 0
    connections: list[Connection] = field(factory=list)

    def connect(self, factory: Any) -> Deferred[Any]:
        """Lead to the process that is there."""
        end = Connection()
        end.model = self.model
        self.connections.append(end)
        end.protocol = factory.buildProtocol(None)
        end.protocol.makeConnection(end)
        return succeed(end.protocol)

    def notice(self) -> None:
        """Let all be seen that has ended: it is before any answer of what came next."""
        for end in list(self.connections):
            if end.model != self.model or end.disconnecting:
                self.connections.remove(end)
                end.lose()

    @property
    def asked(self) -> list[Connection]:
        """Those to the present process that have something to answer."""
        live = [end for end in self.connections if end.model == self.model]
        return [end for end in live if end.is_asked]


def keys_of(info: ServerInfo) -> Keys:
    """Return the keys of the rows of a model."""
    source = Source(identity=info.identity)
    return Keys(epoch=[str(info.model)], by_client=False, are_ours=False, source=source)


@define(eq=False)
class World:
    """A proxy before an address, where processes come and go."""

    address: Address = field(factory=Address)
    flow: Harness = field(init=False)
    server: Upstream = field(init=False)
    calls: list[Outcome] = field(factory=list)
    remembers: bool = False
    """Whether rows are remembered, and work in flight is shared."""

    compute: Submit = field(init=False)

    def __attrs_post_init__(self) -> None:
        clock = Clock()
        joining = Joining(clock=clock)
        self.flow = harness(items=2, slots=3, may_join=joining.may_join, clock=clock)
        pool = ConnectionPool(clock, 4)
        client = FastClient(
            base_url="http://upstream",
            endpoint=self.address,
            pool=pool,
            max_answer_bytes=10_000,
        )
        self.server = make_upstream(client.send, clock, pool=pool)
        self.flow.collector.sender.send_request = self.server.send
        self.compute = self.flow.collector.submit
        if self.remembers:
            self._remember(joining)
        self.server.start()

    def _remember(self, joining: Joining) -> None:
        in_flight = InFlight(
            compute=self.compute, is_of_collector=True, may_join=joining.may_join
        )
        cache = MemoryCache(
            compute=in_flight.submit,
            clock=self.flow.clock,
            store=Store(max_size=1 << 20),
            keys=keys_of(ServerInfo()),
            ttl_s=100.0,
            is_certain=lambda: self.server.is_certain,
            may_join=joining.may_join,
        )

        def learn(info: ServerInfo) -> None:
            in_flight.forget()
            cache.forget(keys_of(info))

        self.server.discovery.on_change = learn
        self.compute = cache.submit

    def submit(self, count: int) -> None:
        """Ask for so many rows."""
        call = call_of(*map(str, range(count)))
        self.calls.append(Outcome(call, self.compute(call)))
        self.flow.clock.advance(0)

    def swap(self, _: int) -> None:
        """Put another process in the place of the present one."""
        self.address.model += 1

    def notice(self, which: int) -> None:
        """Let the end of one connection to a process that is gone be seen."""
        address = self.address
        dead = [end for end in address.connections if end.model != address.model]
        self._lose(dead, which)

    def lose(self, which: int) -> None:
        """Let a connection end, in the middle of a request or not."""
        self._lose(self.address.connections, which)

    def _lose(self, ends: list[Connection], which: int) -> None:
        if ends:
            end = ends[which % len(ends)]
            self.address.connections.remove(end)
            end.lose()

    def answer(self, which: int) -> None:
        """Answer one request."""
        self.address.notice()
        asked = self.address.asked
        if asked:
            asked[which % len(asked)].serve()
        self.flow.clock.advance(0)

    def advance(self, which: int) -> None:
        """Let time pass."""
        self.flow.clock.advance((0.1, 1, 5, 61)[which % 4])

    def settle(self) -> None:
        """Answer until nothing is open."""
        for _ in range(ROUNDS):
            if not any(call.is_open for call in self.calls):
                return
            while self.address.asked:
                self.answer(0)
            self.address.notice()
            self.flow.clock.advance(0.1)
        raise AssertionError([call.call for call in self.calls if call.is_open])

    def stop(self) -> None:
        """Close everything."""
        self.server.stop()
        self.address.model += 1
        self.address.notice()


EVENTS = st.one_of(
    st.tuples(st.just("submit"), st.integers(1, 9)),
    st.tuples(st.just("answer"), st.integers(0, 9)),
    st.tuples(st.just("answer"), st.integers(0, 9)),
    st.tuples(st.just("answer"), st.integers(0, 9)),
    st.tuples(
        st.sampled_from(["swap", "notice", "lose", "advance"]), st.integers(0, 9)
    ),
)


def play(
    events: Sequence[tuple[str, int]], *, remembers: bool = False
) -> list[Outcome]:
    """Let *events* happen; return what became of the calls."""
    world = World(remembers=remembers)
    for event, value in events:
        getattr(world, event)(value)
    world.settle()
    world.stop()
    return world.calls


@given(events=st.lists(EVENTS, min_size=15, max_size=60), remembers=st.booleans())
def test_no_call_has_rows_of_two_models(
    events: Sequence[tuple[str, int]], *, remembers: bool
) -> None:
    """Whatever is swapped, breaks, is remembered and answered, in any order."""
    for call in play(events, remembers=remembers):
        [result] = call.results
        if isinstance(result, Failure):
            continue
        assert isinstance(result, Response)
        rows = msgspec.json.decode(result.body)
        assert [row[1] for row in rows] == list(range(len(rows)))
        assert len({row[0] for row in rows}) == 1


def test_a_call_goes_on_with_the_next_model() -> None:
    """Its first rows are computed again, and it is no error."""
    swap = [("answer", 0), ("submit", 7), ("answer", 0), ("swap", 0)]

    [call] = play(swap)

    assert {row[0] for row in call.rows} == {1}
