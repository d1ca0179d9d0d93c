"""What computes calls in tests of what is not computed twice."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import msgspec
from attrs import define, field
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from abproxy.dialects.call import Call, PartResult
from abproxy.errors import CannotConnect, QueueFull
from abproxy.http.messages import Response
from abproxy.upstream.identity import Identity, Source
from abproxy.upstream.joining import Joining
from support.batching import Outcome
from support.upstream import row_of

BAD = "bad"
"""Texts that begin so are refused, and so is every request that has one."""

may_join = Joining(clock=Clock()).may_join

Asked = tuple[Call, Deferred[list[PartResult]]]

TEXTS = st.lists(
    st.sampled_from(["a", "b", "c", "d", "bad1", "bad2"]), min_size=1, max_size=4
)
EVENTS = st.one_of(
    st.tuples(st.just("submit"), TEXTS),
    st.tuples(st.just("submit"), TEXTS),
    st.tuples(st.just("answer"), st.integers(0, 50)),
    st.tuples(st.sampled_from(["answer", "leave", "fail"]), st.integers(0, 50)),
    st.tuples(st.sampled_from(["swap", "swap unseen", "see"]), st.none()),
)


@define
class Computer:
    """Computes calls one by one, when the test says so."""

    asked: list[Asked] = field(factory=list)
    is_full: bool = False
    is_quick: bool = False
    """Whether it answers before it has returned."""

    model: int = 0
    """Which model it has: each has rows of its own."""

    def compute(self, call: Call) -> Deferred[list[PartResult]]:
        """Accept one call."""
        if self.is_full:
            raise QueueFull("full", 1)
        done: Deferred[list[PartResult]] = Deferred()
        self.asked.append((call, done))
        if self.is_quick:
            done.callback([PartResult(response=alone(texts_of(call)))])
        return done

    @property
    def open(self) -> list[Asked]:
        """The calls without an answer."""
        return [each for each in self.asked if not each[1].called]

    @property
    def batches(self) -> list[list[str]]:
        """The texts of all calls so far."""
        return [texts_of(call) for call, _ in self.asked]

    def answer_with(self, response: Response, at: int = 0) -> None:
        """Answer an open call."""
        self.open[at][1].callback([PartResult(response=response)])

    def answer(self, at: int = 0) -> None:
        """Answer an open call as the server always does."""
        self.answer_with(alone(texts_of(self.open[at][0]), self.model), at)

    def fail(self, at: int = 0) -> None:
        """Let an open call fail for a reason that has nothing to do with it."""
        self.open[at][1].errback(CannotConnect("away"))

    def answer_all(self) -> None:
        """Answer until nothing is open."""
        while self.open:
            self.answer()


def texts_of(call: Call) -> list[str]:
    """Return the texts in the request of a call."""
    return list(msgspec.json.decode(call.alone.body)["inputs"])


@cache
def source_of(model: int) -> Source:
    """Return where rows of a *model* come from."""
    return Source(identity=Identity(models=(str(model),)))


def alone(texts: Sequence[str], model: int = 0) -> Response:
    """Return what a call with *texts* gets by itself of a *model*."""
    source = source_of(model)
    bad = [text for text in texts if text.startswith(BAD)]
    if bad:
        body = msgspec.json.encode({"error": f"{bad} of {len(texts)}"})
        return Response(status=422, reason=b"", headers=(), body=body, source=source)
    body = msgspec.json.encode(
        [[*row_of(text), *[model] * (model > 0)] for text in texts]
    )
    return Response(status=200, reason=b"OK", headers=(), body=body, source=source)


def play(
    events: Sequence[tuple[str, Any]],
    server: Computer,
    submit: Callable[[list[str]], Outcome],
    learn: Callable[[int], None],
) -> tuple[list[Outcome], int]:
    """Let *events* happen, and then all be answered; return calls and failures."""
    calls: list[Outcome] = []
    failures = 0
    for event, value in events:
        waiting = [call for call in calls if call.is_open]
        if event == "submit":
            calls.append(submit(value))
        elif event in {"swap", "swap unseen", "see"}:
            server.model += event != "see"
            if event != "swap unseen":
                learn(server.model)
        elif event == "leave":
            if waiting:
                waiting[value % len(waiting)].done.cancel()
        elif server.open:
            failures += event == "fail"
            getattr(server, event)(value % len(server.open))
    server.answer_all()
    return calls, failures


def check(calls: Sequence[Outcome], failures: int, models: int) -> None:
    """Check that each call got what it gets alone of one of so many models."""
    errors = 0
    for call in calls:
        [result] = call.results
        if isinstance(result, Response):
            texts = texts_of(call.call)
            right = [alone(texts, model).body for model in range(models + 1)]
            assert result.body in right
        elif not isinstance(call.error, CancelledError):
            errors += 1
    assert errors <= failures
