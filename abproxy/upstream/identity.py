"""
Which model a server has: rows of two models are never in one answer.

What a server says of its model holds for one *generation* of it: from when it was
first heard of until a connection to it breaks, cannot be made, or none is left, or
it says something else.  By then another server may be at its address.  The answers
of a generation name it as their source; what it says of its model may be known only
later, or never.
"""

from collections import Counter
from collections.abc import Callable, Sequence

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, succeed

__all__ = [
    "NO_IDENTITY",
    "Generations",
    "Identity",
    "Source",
    "choose_served",
    "same_model",
    "takes_over",
    "why_refused",
]


@frozen(kw_only=True)
class Identity:
    """What a server says of its model."""

    models: tuple[str, ...] = ()
    """The ids that it lists, in order; none if it tells nothing of itself."""

    sha: str | None = None
    """Which version of the model it is."""

    dtype: str | None = None
    """In which numbers the model computes."""

    def __str__(self) -> str:
        """Name the model, as far as that is possible."""
        if not self.models:
            return "a model that it does not name"
        names = ", ".join(self.models[:FEW])
        if len(self.models) > FEW:
            names = f"{names} and {len(self.models) - FEW} more"
        about = [each for each in (self.sha, self.dtype) if each]
        return f"{names} ({', '.join(about)})" if about else names


FEW = 3
"""Of more models only so many are named."""

NO_IDENTITY = Identity()
"""That of a server that has been asked, and tells nothing of its model."""


def same_model(
    one: Identity, other: Identity, *, strict: bool = False, asked: str | None = None
) -> bool:
    """
    Return whether rows of *one* and of the *other* may be in one answer.

    That is so if the ids are equal, and the shas where both say one.  Of servers that
    list several models only the one that was asked for has to be on both lists.

    Args:
        one: what a server says of its model.
        other: what another one says, or the same one later.
        strict: whether they have to compute in the same numbers as well.
        asked: the model that a call names.
    """
    if strict and one.dtype != other.dtype:
        return False
    if one.sha and other.sha and one.sha != other.sha:
        return False
    if asked in one.models or asked in other.models:
        return asked in one.models and asked in other.models
    return one.models == other.models


def takes_over(served: Identity, other: Identity, *, strict: bool = False) -> bool:
    """
    Return whether a server with the *other* identity serves all calls for *served*.

    It may list more models than that, as it does while one is being added.
    """
    if set(served.models) < set(other.models) and served.models:
        other = Identity(models=served.models, sha=other.sha, dtype=other.dtype)
    return same_model(served, other, strict=strict)


def why_refused(served: Identity, other: Identity, *, strict: bool = False) -> str:
    """Return why a server with the *other* identity gets no calls; "" if it gets."""
    if takes_over(served, other, strict=strict):
        return ""
    return f"it has {other}, where {served} is served: it gets no calls until it has"


def choose_served(
    served: Identity | None, usable: Sequence[Identity], *, strict: bool = False
) -> Identity | None:
    """
    Return which model is served from now on, by servers that have one each.

    The first one that answered says which; only when none is left that has this
    model, it is the one that most of the others have.

    Args:
        served: the model so far; None if no server has answered yet.
        usable: what each server says that can be used, in the order in which they
            answered first.
        strict: whether all have to compute in the same numbers.
    """
    if served is None:
        return usable[0] if usable else None
    if not usable or any(takes_over(served, each, strict=strict) for each in usable):
        return served
    votes = Counter(
        {
            each: sum(takes_over(each, other, strict=strict) for other in usable)
            for each in dict.fromkeys(usable)
        }
    )
    return votes.most_common(1)[0][0]


def _nothing() -> None:
    """Do nothing."""


@define(eq=False)
class Source:
    """One generation of a server."""

    upstream: str = ""
    """The base URL of the server."""

    generation: int = 0
    """How many there were before."""

    ask: Callable[[], None] = field(default=_nothing, repr=False)
    """Asks the server for its model, soon."""

    blame: Callable[[], None] = field(default=_nothing, repr=False)
    """Called when an answer of it has other rows than were asked for."""

    identity: Identity | None = None
    """What it says of its model; None as long as it has not been asked."""

    is_over: bool = False
    """Whether there is a later one, so that it cannot be asked any more."""

    later: Identity | None = None
    """What it said at last, if that is another model: some of its rows are of that."""

    connections: set[object] = field(init=False, factory=set, repr=False)
    """Those to it that are open."""

    keeps_connections: bool = field(init=False, default=False)
    """Whether it has kept one open after an answer."""

    _waiting: list[Deferred[None]] = field(init=False, factory=list, repr=False)

    def known(self) -> Deferred[None]:
        """Fire when its identity is known, or can never be; it is asked for it."""
        if self.identity is not None or self.is_over:
            return succeed(None)
        known: Deferred[None] = Deferred(self._waiting.remove)
        self._waiting.append(known)
        self.ask()
        return known

    def settle(self, identity: Identity) -> None:
        """Note what it says of its model."""
        self.identity = identity
        self._tell()

    def end(self) -> None:
        """Note that there is a later one."""
        self.is_over = True
        self._tell()

    def _tell(self) -> None:
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)


@define(eq=False)
class Generations:
    """
    The generations of one server, of which the last is the present one.

    As long as a connection stays open, the same process is behind it; so a new
    generation begins when the last one is closed, whichever side has closed it, unless
    the server never keeps one.  Behind a balancer that is no proof, and neither is
    it if two servers listen at one address: see docs/many-servers.md.
    """

    upstream: str = ""
    strict: bool = False
    """Whether the same model in other numbers is another one."""

    ask: Callable[[], None] = field(init=False, default=_nothing, repr=False)
    """Asks the server for its model, soon."""

    doubt: Callable[[], None] = field(init=False, default=_nothing, repr=False)
    """Called when another server may have taken its place, unasked."""

    on_settle: Callable[[], None] = field(init=False, default=_nothing, repr=False)
    """Called when it has said which model it has."""

    on_blame: Callable[[], None] = field(init=False, default=_nothing, repr=False)
    """Called when an answer of it has other rows than were asked for."""

    source: Source = field(init=False)
    """The present one."""

    def __attrs_post_init__(self) -> None:
        """Begin with nothing known."""
        self.source = self._make(0)

    def connected(self, connection: object) -> Source:
        """Return what a new *connection* leads to."""
        self.source.connections.add(connection)
        return self.source

    def lost(
        self, source: Source, connection: object, *, by_server: bool = False
    ) -> None:
        """Note that a *connection* to *source* is closed, with nothing asked on it."""
        if connection not in source.connections:
            return
        source.connections.remove(connection)
        if source.keeps_connections and not source.connections:
            if by_server and source is self.source:
                self.doubt()
            self.end(source)
            if source.identity == NO_IDENTITY and self.source.identity is None:
                # Until it says something else: nothing tells of another process.
                self.source.identity = NO_IDENTITY

    def broke(self, source: Source, connection: object) -> None:
        """Note that a *connection* to *source* has ended without an answer."""
        source.connections.discard(connection)
        self.end(source)

    def end(self, source: Source) -> None:
        """Begin a new one, if *source* is the present one."""
        if source is self.source:
            self.source = self._make(source.generation + 1)
            source.end()

    def of_answer(self, source: Source) -> Source:
        """Return what has given an answer, if it was asked as *source*."""
        return Source(self.upstream, is_over=True) if source.is_over else source

    def settle(self, source: Source, identity: Identity) -> None:
        """Note what *source* says of its model; it may have said something else."""
        former = source.identity
        if former is None or same_model(former, identity, strict=self.strict):
            source.settle(identity)
            if identity == NO_IDENTITY and self.source.identity is None:
                self.source.settle(identity)
        else:
            # Since some time in the past, which was not noticed.
            source.later = identity
            self.end(source)
            self.source.settle(identity)
        self.on_settle()

    def _make(self, generation: int) -> Source:
        return Source(self.upstream, generation, self._ask, self._blame)

    def _ask(self) -> None:
        self.ask()

    def _blame(self) -> None:
        self.on_blame()
