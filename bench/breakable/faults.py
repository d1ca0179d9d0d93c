"""
What can be broken, by name.

A fault changes the rows before they are written, the answer once it is
written, or what becomes of its bytes on the way.  Each is a small function of
what would have been right and of one number, its `value`.
"""

from collections import deque
from collections.abc import Callable

from attrs import define, evolve, field, frozen
from attrs.validators import ge, in_

from bench.breakable.messages import Answer, Delivery, error

__all__ = ["FAULTS", "Fault", "Faults"]

Rows = list[bytes]


def _refuse(_answer: Answer, value: int) -> Answer:
    status = value or 429
    kind = "Unhealthy" if status == 503 else "Overloaded"  # noqa: PLR2004
    return error(status, "Model is overloaded", kind)


def _truncate(answer: Answer, value: int) -> Answer:
    return evolve(answer, body=answer.body[: value or len(answer.body) // 2])


def _error_body(answer: Answer, _value: int) -> Answer:
    return evolve(error(424, "inference failed", "Backend"), status=answer.status)


def _garbage(answer: Answer, _value: int) -> Answer:
    return evolve(answer, body=b"\xff\x00[[not JSON")


def _cut(data: bytes, value: int) -> Delivery:
    return Delivery(data=data[:value], then="close")


def _stall(data: bytes, value: int) -> Delivery:
    return Delivery(data=data[:value], then="stall")


def _not_http(_data: bytes, _value: int) -> Delivery:
    return Delivery(data=b"220 this is no HTTP\r\n\r\n", then="close")


ROWS: dict[str, Callable[[Rows, int], Rows]] = {
    "too-few": lambda rows, value: rows[: -(value or 1)],
    "too-many": lambda rows, value: [*rows, *rows[:1] * (value or 1)],
}
"""Faults of the model: it answers something else than one row for each input."""

ANSWERS: dict[str, Callable[[Answer, int], Answer]] = {
    "refuse": _refuse,
    "truncate": _truncate,
    "error-body": _error_body,
    "garbage": _garbage,
}
"""
Faults of the server, in good HTTP: no room (429, or 503 with that value), JSON
that ends after *value* bytes, status 200 with an error in the body, no JSON.
"""

DELIVERIES: dict[str, Callable[[bytes, int], Delivery]] = {
    "cut": _cut,
    "stall": _stall,
    "no-http": _not_http,
}
"""
Faults of the connection: it closes, or falls silent for ever, after *value*
bytes of the answer (0: before its head); or something else speaks there.
"""

FAULTS = (*ROWS, *ANSWERS, *DELIVERIES)


@frozen(kw_only=True)
class Fault:
    """One thing that goes wrong, for the next so many requests."""

    fault: str = field(validator=in_(FAULTS))
    value: int = 0
    times: int = field(default=1, validator=ge(1))

    def on_rows(self, rows: Rows) -> Rows:
        """Spoil *rows*, if that is what this fault does."""
        change = ROWS.get(self.fault)
        return change(rows, self.value) if change else rows

    def on_answer(self, answer: Answer) -> Answer:
        """Spoil *answer*, if that is what this fault does."""
        change = ANSWERS.get(self.fault)
        return change(answer, self.value) if change else answer

    def on_bytes(self, data: bytes) -> Delivery:
        """Say what of *data* travels."""
        change = DELIVERIES.get(self.fault)
        return change(data, self.value) if change else Delivery(data=data)


@define(eq=False)
class Faults:
    """What will go wrong, in order."""

    _waiting: deque[Fault] = field(init=False, factory=deque)

    def __len__(self) -> int:
        """Count the requests that will meet one."""
        return sum(fault.times for fault in self._waiting)

    def add(self, fault: Fault) -> None:
        """Let *fault* happen after those that were asked for before."""
        self._waiting.append(fault)

    def clear(self) -> None:
        """Let nothing go wrong any more."""
        self._waiting.clear()

    def take(self) -> Fault | None:
        """Take the fault for the next request; None if all is well."""
        if not self._waiting:
            return None
        fault = self._waiting.popleft()
        if fault.times > 1:
            self._waiting.appendleft(evolve(fault, times=fault.times - 1))
        return fault
