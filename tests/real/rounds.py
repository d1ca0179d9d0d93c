"""
Each call alone and directly first; then the same through a way, in company.

What a caller gets must not tell whether its call was held, shared or cut up.
"""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from attrs import define, evolve, field, frozen

from real.asking import Answer, Call, ask_at_once, ask_one_by_one
from real.between import Way
from real.cases import Dialect, elsewhere, good, large, special
from real.comparing import Closeness, Expected, shortened, usage_of
from real.running import CannotRun
from real.serving import Server

COMPANY = 3
"""Good calls that one of the others is asked together with."""

TURNS = 8
"""How often a round that looks for what happens rarely is repeated."""

Say = Callable[[str], None]


@frozen(kw_only=True)
class Case:
    """A call, and what the server answers to it directly."""

    call: Call
    expected: Expected


@frozen(kw_only=True)
class Cases:
    """All calls of one dialect."""

    path: str
    good: Sequence[Case]
    special: Sequence[Case]
    large: Sequence[Case]
    elsewhere: Sequence[Case]

    def company(self) -> Sequence[Case]:
        """Return good calls that may share a batch with one of the others."""
        return self.good[:COMPANY]

    def without(self, names: frozenset[str]) -> "Cases":
        """Leave out the unusual calls of these *names*."""
        return evolve(
            self,
            special=[each for each in self.special if each.call.name not in names],
            elsewhere=[each for each in self.elsewhere if each.call.name not in names],
        )


@frozen(kw_only=True)
class Failure:
    """A call that was answered otherwise than directly."""

    round: str
    call: str
    differences: tuple[str, ...]
    request: str
    direct: str
    through: str

    def kind(self) -> tuple[str, str, str]:
        """Return what equal failures have in common."""
        return self.round, self.call, self.differences[0]


@define(kw_only=True)
class Found:
    """What was found on one way to one server."""

    calls: int = 0
    failed: int = 0
    refused: int = 0
    """Calls that the server refuses directly."""

    closeness: Closeness = field(factory=Closeness)
    failures: dict[tuple[str, str, str], Failure] = field(factory=dict)
    counts: Counter[tuple[str, str, str]] = field(factory=Counter)

    def compare(
        self, name: str, case: Case, answer: Answer, *, is_shared: bool
    ) -> None:
        """Take note of *answer*."""
        self.calls += 1
        self.refused += case.expected.answer.status >= 400
        found = case.expected.differences(answer, self.closeness, is_shared=is_shared)
        if found:
            self._note(_failure(name, case, answer, found))

    def compare_usage(
        self, name: str, cases: Sequence[Case], answers: Sequence[Answer]
    ) -> None:
        """
        Compare the sum of tokens of all callers with what the server counted.

        Where a call is refused nothing can be said: parts of it may have been
        computed, and counted, before.
        """
        if any(each.expected.answer.status >= 400 for each in cases):
            return
        direct = sum(usage_of(each.expected.answer) for each in cases)
        through = sum(map(usage_of, answers))
        if direct != through:
            words = f"usage of all callers: {direct}, not {through}"
            self._note(
                Failure(
                    round=name,
                    call="all",
                    differences=(words,),
                    request="",
                    direct=str(direct),
                    through=str(through),
                )
            )

    def _note(self, failure: Failure) -> None:
        self.failed += 1
        self.failures.setdefault(failure.kind(), failure)
        self.counts[failure.kind()] += 1


def ask_directly(server: Server, url: str) -> list[Cases]:
    """
    Ask *server* itself, twice, one call after the other.

    Raises:
        CannotRun: it refuses good calls, so nothing could be shown.
    """
    found = []
    for at, dialect in enumerate(server.dialects):
        paths = server.elsewhere if at == 0 else ()
        found.append(_cases(dialect, url, paths))
    return found


def _cases(dialect: Dialect, url: str, paths: Sequence[str]) -> Cases:
    answered = _expected(url, good(dialect))
    for each in answered:
        if each.expected.answer.status != 200:
            said = shortened(each.expected.answer)
            raise CannotRun(f"a good call to {dialect.path} is refused: {said}")
    return Cases(
        path=dialect.path,
        good=answered,
        special=_expected(url, special(dialect)),
        large=_expected(url, large(dialect)),
        elsewhere=_expected(url, elsewhere(dialect, paths)),
    )


def _expected(url: str, calls: Sequence[Call]) -> list[Case]:
    first = ask_one_by_one(url, calls)
    # A time in seconds must not be the same by chance.
    time.sleep(1.1)
    second = ask_one_by_one(url, calls)
    return [
        Case(call=call, expected=Expected.of(one, other))
        for call, one, other in zip(calls, first, second, strict=True)
    ]


def go(cases: Sequence[Cases], way: Way, say: Say, *, is_short: bool) -> Found:
    """
    Ask all rounds on *way*.

    Args:
        cases: what is asked.
        way: where.
        say: is told of what differs.
        is_short: leave out the rounds with one of the special calls in each.
    """
    found = Found()
    for each in [one.without(way.not_asked) for one in cases]:
        for name, asked, is_shared in _rounds(each, is_short=is_short):
            calls = [case.call for case in asked]
            ask = ask_at_once if is_shared else ask_one_by_one
            answers = ask(way.url, calls)
            before = found.failed
            for case, answer in zip(asked, answers, strict=True):
                found.compare(name, case, answer, is_shared=is_shared)
            if is_shared and found.failed == before:
                found.compare_usage(name, asked, answers)
            if found.failed > before:
                say(f"  {each.path}, {name}: {found.failed - before} differ")
    return found


def _rounds(
    cases: Cases, *, is_short: bool
) -> Iterator[tuple[str, Sequence[Case], bool]]:
    good, special = list(cases.good), list(cases.special)
    yield "one by one", [*good[:COMPANY], *special, *cases.elsewhere], False
    yield "in turns, refused with 5xx and with 4xx", _in_turns(special), False
    yield "cut up", cases.large, False
    yield "at once", good, True
    for case in [] if is_short else special:
        name = f"at once, {COMPANY} good ones and {case.call.name}"
        yield name, [*cases.company(), case], True
    mixed = [*good, *special, *cases.large]
    random.Random(7).shuffle(mixed)  # noqa: S311  the same every time
    yield "all at once", mixed, True


def _in_turns(special: Sequence[Case]) -> Sequence[Case]:
    # After an error of its own a server may close the connection without a word,
    # and the next call must not suffer.
    broken = [each for each in special if each.expected.answer.status >= 500]
    refused = [each for each in special if 400 <= each.expected.answer.status < 500]
    return [
        each for pair in zip(broken, refused, strict=False) for each in pair
    ] * TURNS


def _failure(
    name: str, case: Case, answer: Answer, differences: Sequence[str]
) -> Failure:
    call = case.call
    # Good calls differ by their number only.
    kind = (
        call.name.rstrip("0123456789 ") if call.name.startswith("good") else call.name
    )
    body = (call.body or b"").decode(errors="replace")
    return Failure(
        round=name,
        call=kind,
        differences=tuple(differences[:5]),
        request=f"{call.method} {call.path} {body[:200]}{'…' * (len(body) > 200)}",
        direct=shortened(case.expected.answer),
        through=shortened(answer),
    )
