"""
Several inference servers of one model, as if they were one.

Each request goes to the server that would answer it soonest, among those that take
part; servers may come and go.  With all of them out one is used all the same.
"""

from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import Any

import attrs
from attrs import asdict, define, field
from twisted.internet.defer import (
    Deferred,
    gatherResults,
    succeed,
)
from twisted.internet.interfaces import IReactorTime

from abproxy.events import Observer, UpstreamState
from abproxy.http.headers import Credentials
from abproxy.http.messages import Response, UpstreamRequest
from abproxy.timer import Timer
from abproxy.upstream.client import Upstream
from abproxy.upstream.fleet.agreement import Agreement
from abproxy.upstream.fleet.choice import Choice, find_outliers, note_share
from abproxy.upstream.fleet.member import Member
from abproxy.upstream.fleet.resolve import NamedServers
from abproxy.upstream.fleet.sending import FleetSender
from abproxy.upstream.fleet.standing import Standing
from abproxy.upstream.fleet.work import Work
from abproxy.upstream.health import answers_question
from abproxy.upstream.server_info import ServerInfo

__all__ = ["Fleet"]

LOOK_S = 0.5
"""How often it is looked for servers that may be away, or are too slow, in seconds."""

BEST_FIRST = (
    UpstreamState.UP,
    UpstreamState.FULL,
    UpstreamState.UNKNOWN,
    UpstreamState.FAILING,
    UpstreamState.UNREACHABLE,
)


@define(kw_only=True, eq=False)
class Fleet:
    """The servers of one model."""

    clock: IReactorTime = field(repr=False)
    timeout_s: float
    """How long a request may take, wherever it is sent, in seconds."""

    credentials: Credentials = field(repr=False)
    """Shown with our own questions."""

    permits_of: Callable[[ServerInfo], int] = field(repr=False)
    """Returns how many inputs may be in flight at the server that says this."""

    on_change: Callable[[ServerInfo], None] = field(
        default=lambda _info: None, repr=False
    )
    """Called when something else is known of them than before."""

    on_resize: Callable[[], None] = field(default=lambda: None, repr=False)
    """Called when others take part than before."""

    strict: bool = False
    """Whether the same model in other numbers is another one."""

    drained: set[str] = field(factory=set)
    """Addresses to which the operator wants nothing to be sent; all models have it."""

    observer: Observer = field(factory=Observer, repr=False)
    random: Random = field(factory=Random, repr=False)

    agreement: Agreement = field(init=False)
    """Which model they are for."""

    choice: Choice = field(init=False, repr=False)
    sender: FleetSender = field(init=False, repr=False)
    members: list[Member] = field(init=False, factory=list)
    """Those that there are, also those that take no part at the moment."""

    names: list[NamedServers] = field(init=False, factory=list)
    """Names of which each address is a server."""

    _leaving: dict[Member, Deferred[Any]] = field(init=False, factory=dict, repr=False)
    _info: ServerInfo = field(init=False, factory=ServerInfo)
    _next_look: Timer = field(init=False, repr=False)
    _is_running: bool = field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        """Begin without a server."""
        self._next_look = Timer(self.clock, self._look)
        self.agreement = Agreement(
            clock=self.clock, strict=self.strict, on_due=self.look_again
        )
        self.choice = Choice(
            members=lambda: self.members,
            taking_part=lambda: self._taking_part,
            permits_of=self.permits_of,
            random=self.random,
        )
        self.sender = FleetSender(
            clock=self.clock,
            timeout_s=self.timeout_s,
            choose=self.choice.choose,
            began=self._began,
            ended=self._let_go,
            observer=self.observer,
        )

    # Who there is

    def add(self, upstream: Upstream, weight: float = 1.0) -> Member:
        """Add a server, which gets work when it has said which model it has."""
        upstream.use(self.credentials)
        upstream.set_timeout(self.timeout_s)
        member = Member(
            upstream=upstream,
            work=Work(clock=self.clock, weight=weight),
            standing=Standing(
                name=upstream.name,
                clock=self.clock,
                ask=partial(self._ask_health, upstream),
                on_change=self.look_again,
            ),
        )
        member.standing.on_silence = lambda: self.sender.rescue(member)
        member.others = lambda: [
            each for each in self._taking_part if each is not member
        ]
        member.drain(is_drained=member.address in self.drained)
        upstream.name_in_log()
        upstream.discovery.on_change = lambda _info: self.look_again()
        upstream.generations.on_settle = self.look_again
        upstream.generations.on_blame = member.blamed
        self.members.append(member)
        if self._is_running:
            member.standing.begin_small()
            upstream.start()
        self.look_again()
        return member

    def remove(self, member: Member) -> Deferred[Any]:
        """
        Send nothing more to *member*; what is in flight there is answered.

        Fires when its last answer is here and its connections are closed.
        """
        self.members.remove(member)
        member.is_leaving = True
        member.standing.stop()
        member.upstream.discovery.stop()
        left: Deferred[Any] = Deferred()
        self._leaving[member] = left
        self.look_again()
        self._let_go(member)
        return left

    def drain(self, address: str, *, is_drained: bool = True) -> None:
        """Send nothing more to the servers at *address*, or again; also to new ones."""
        (self.drained.add if is_drained else self.drained.discard)(address)
        for member in self.members:
            if member.address == address:
                member.drain(is_drained=is_drained)
        self.look_again()

    def takes_part(self, member: Member) -> bool:
        """Return whether *member* gets work."""
        return (
            not member.standing.is_out
            and not member.is_drained
            and not member.is_leaving
            and not member.refused
            and not member.is_unsure
        )

    def look_again(self) -> None:
        """Tell those who have to know if others take part, or say something else."""
        self.agreement.look(self.members)
        before, self._info = self._info, self._info_of_all()
        alike = attrs.evolve(
            before, max_inputs_in_flight=self._info.max_inputs_in_flight
        )
        if self._info != alike:
            self.on_change(self._info)
        else:
            self.on_resize()

    @property
    def _taking_part(self) -> list[Member]:
        return [each for each in self.members if self.takes_part(each)]

    def _let_go(self, member: Member) -> None:
        if member.is_leaving and not member.work.requests:
            left = self._leaving.pop(member, None)
            if left is not None:
                member.upstream.stop().chainDeferred(left)

    # What is noticed without being told

    def _look(self) -> None:
        """Ask who may be away, take out who is too slow, and resend what is late."""
        self._next_look.set(LOOK_S)
        members = self._taking_part
        outliers = find_outliers([each.work for each in members])
        for member in members:
            if member.work in outliers:
                member.standing.eject("it takes far longer than the others")
                member.work.forget_speed()
            elif member.is_suspect(self.clock.seconds()):
                member.standing.doubt()
        self.sender.look()

    # What is known of them

    @property
    def infos(self) -> Sequence[ServerInfo]:
        """Return what is known of each server that takes part, or of all if none."""
        counted = self._taking_part or self.members
        return [each.upstream.info for each in counted] or [ServerInfo()]

    @property
    def info(self) -> ServerInfo:
        """Return what is known of all of them."""
        return self._info

    def _info_of_all(self) -> ServerInfo:
        infos = self.infos
        known = [each for each in infos if each != ServerInfo()]
        if not known:
            # One that has just come may be all there is, and has said nothing yet.
            everyone = [each.upstream.info for each in self.members]
            known = [each for each in everyone if each != ServerInfo()]
        if not known:
            return ServerInfo()
        limits = [each.max_batch_inputs for each in known if each.max_batch_inputs]
        permits = None
        if any(each.is_tei for each in known):
            permits = sum([self.permits_of(each) for each in infos])
        versions = {each.version for each in known}
        return attrs.evolve(
            known[0],
            **self.agreement.said,
            version=versions.pop() if len(versions) == 1 else None,
            max_batch_inputs=min(limits, default=None),
            max_inputs_in_flight=permits,
        )

    @property
    def is_certain(self) -> bool:
        """Return whether all that take part were asked since a connection broke."""
        active = self._taking_part
        return bool(active) and all(each.upstream.is_certain for each in active)

    @property
    def state(self) -> UpstreamState:
        """Return how the best of them is."""
        states = {each.upstream.state for each in self.members}
        return next(
            (each for each in BEST_FIRST if each in states), UpstreamState.UNREACHABLE
        )

    @property
    def refused(self) -> int:
        """Return how many of them get no calls, as they have another model."""
        return sum([bool(each.refused) for each in self.members])

    @property
    def base_url(self) -> str:
        """Return where they are."""
        of_names = [each.base_url for each in self.names]
        known = of_names + [each.base_url for each in self.members]
        return ",".join(dict.fromkeys(known))

    @property
    def unfinished_bytes(self) -> int:
        """Return what has come of answers that are not whole yet."""
        return sum([each.upstream.unfinished_bytes for each in self.members])

    def left_out(self) -> tuple[int, int]:
        """Return how many inputs and requests are at servers that take no part."""
        others = [
            each.work
            for each in (*self.members, *self._leaving)
            if not self.takes_part(each)
        ]
        if len(others) == len(self.members) + len(self._leaving):
            return 0, 0  # with all out they are used all the same
        items = sum([each.items for each in others])
        return items, sum([each.requests for each in others])

    def is_alive(self) -> Deferred[bool | None]:
        """Ask whether one of them answers; never fails, and None if uncertain."""
        return self._is_one_alive([])

    def _is_one_alive(self, asked: Sequence[Member]) -> Deferred[bool | None]:
        member = self.choose(asked)
        if member is None:
            return succeed(False)

        def or_another(is_alive: bool | None) -> Any:  # noqa: FBT001
            if is_alive is False:
                return self._is_one_alive([*asked, member])
            return is_alive

        return member.upstream.is_alive().addCallback(or_another)

    def describe(self) -> dict[str, Any]:
        """Return what the status says of them."""
        best = min(
            (each.upstream.describe() for each in self.members),
            key=lambda each: BEST_FIRST.index(UpstreamState(each["state"])),
            default={"state": "unreachable", "why": "there is none", "since": 0.0},
        )
        return {
            **best,
            "url": self.base_url,
            **asdict(self._info),
            "servers": self.servers(),
        }

    def servers(self) -> list[dict[str, Any]]:
        """Return what the status says of each of them."""
        there = [*self.members, *self._leaving]
        whole = sum([each.work.share for each in there]) or 1.0
        return [
            {"takes_part": self.takes_part(each), **each.describe(whole)}
            for each in there
        ]

    # What is told to each of them

    def use(self, credentials: Credentials) -> None:
        """Show these *credentials* with our own questions from now on."""
        self.credentials = credentials
        for each in self.members:
            each.upstream.use(credentials)

    def set_timeout(self, seconds: float) -> None:
        """Change how long a request may take, from the next one on."""
        self.timeout_s = self.sender.timeout_s = seconds
        for each in self.members:
            each.upstream.set_timeout(seconds)

    def apply(
        self,
        *,
        permits_of: Callable[[ServerInfo], int],
        hedge_after: str | None,
        resolve_every_s: float,
    ) -> None:
        """
        Apply settings that are about several servers.

        Args:
            permits_of: how many inputs may be in flight at one that says this.
            hedge_after: what takes longer is sent a second time; None: nothing.
            resolve_every_s: after how long names are looked up again, in seconds.
        """
        self.permits_of = self.choice.permits_of = permits_of
        self.sender.hedging.after = hedge_after
        for name in self.names:
            name.lookup.every_s = resolve_every_s

    def report_to(
        self, on_change: Callable[[ServerInfo], None], on_resize: Callable[[], None]
    ) -> None:
        """
        Call these from now on, as somebody has to know.

        Args:
            on_change: called when something else is known of them than before.
            on_resize: called when others take part than before.
        """
        self.on_change, self.on_resize = on_change, on_resize

    def start(self) -> None:
        """Begin to ask each of them."""
        self._is_running = True
        self._next_look.set(LOOK_S)
        for each in self.members:
            each.upstream.start()
        for name in self.names:
            name.start()

    def stop(self) -> Deferred[Any]:
        """Ask no more; fires when the connections without a request are closed."""
        self._is_running = False
        for name in self.names:
            name.stop()
        self.agreement.stop()
        self._next_look.cancel()
        for each in self.members:
            each.standing.stop()
        stopped = [each.upstream.stop() for each in (*self.members, *self._leaving)]
        return gatherResults(stopped)

    def close_idle(self) -> Deferred[Any]:
        """Close the connections without a request; fires when they are closed."""
        return gatherResults([each.upstream.close_idle() for each in self.members])

    def _ask_health(self, upstream: Upstream) -> Deferred[bool]:
        headers = self.credentials.on(())
        return answers_question(upstream.ask, headers, self.clock)

    def choose(self, tried: Sequence[Member] = ()) -> Member | None:
        """Return where a request would be answered soonest, but none of *tried*."""
        return self.choice.choose(0, 0, tried)

    # Sending

    def ask(self, request: UpstreamRequest) -> Deferred[Response]:
        """Send a question of our own: no reason to ask more, and not measured."""
        return self.sender.send(request, learns=False, is_batch=False)

    @property
    def send(self) -> Callable[..., Deferred[Response]]:
        """Return what sends a request to one of them, and elsewhere if need be."""
        return self.sender.send

    def _began(self, member: Member) -> None:
        note_share(member.work, [each.work for each in self.members])
