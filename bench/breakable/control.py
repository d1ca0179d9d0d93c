"""
The remote control: the same commands over HTTP, under `/-/`.

    POST /-/break  {"fault": "cut", "value": 20, "times": 3}
    POST /-/refuse {"text": "DROP TABLE", "status": 403}
    POST /-/be     {"mood": "firewall"}
    POST /-/do     {"do": "die", "seconds": 2}
    POST /-/traits {"permits": 64, "ms": 10}
    POST /-/mend
    GET  /-/seen
"""

from collections.abc import Callable
from typing import Any

import attrs
import msgspec

from bench.breakable.faults import FAULTS
from bench.breakable.messages import Answer, Request
from bench.breakable.moods import MOODS

__all__ = ["CONTROL", "DEEDS", "control"]

CONTROL = b"/-/"

DEEDS: dict[str, Callable[[Any, float], None]] = {
    "die": lambda server, seconds: server.die(seconds),
    "turn-away": lambda server, seconds: server.turn_away(seconds),
    "accept-slowly": lambda server, seconds: server.accept_slowly(seconds),
    "close-idle": lambda server, _seconds: server.close_idle(),
    "cut-all": lambda server, _seconds: server.cut_all(),
}
"""What is done to the server at once, not to one of its answers."""


class _Deed(msgspec.Struct):
    do: str
    seconds: float = 0.5


class _Mood(msgspec.Struct):
    mood: str


def _break(server: Any, body: bytes) -> object:
    server.break_(**msgspec.json.decode(body, type=dict[str, Any]))
    return {"waiting": len(server.faults)}


def _refuse(server: Any, body: bytes) -> object:
    server.refuse(**msgspec.json.decode(body, type=dict[str, Any]))
    return {"refuses": [attrs.asdict(each) for each in server.refusals]}


def _be(server: Any, body: bytes) -> object:
    mood = msgspec.json.decode(body, type=_Mood).mood
    if mood not in MOODS:
        raise ValueError(f"expected one of {', '.join(MOODS)}, not {mood!r}")
    server.be(mood)
    return {"is": mood}


def _do(server: Any, body: bytes) -> object:
    deed = msgspec.json.decode(body, type=_Deed)
    if deed.do not in DEEDS:
        raise ValueError(f"expected one of {', '.join(DEEDS)}, not {deed.do!r}")
    # The one that asked is answered first.
    server.reactor.callLater(0, DEEDS[deed.do], server, deed.seconds)
    return {"does": deed.do}


def _change(server: Any, body: bytes) -> object:
    server.change(**msgspec.json.decode(body, type=dict[str, Any]))
    return attrs.asdict(server.traits)


def _mend(server: Any, _body: bytes) -> object:
    server.mend()
    return {"waiting": 0}


def _look(server: Any, _body: bytes) -> object:
    return {**attrs.asdict(server.seen), "most_inputs": server.work.most_inputs}


ROUTES: dict[tuple[bytes, bytes], Callable[[Any, bytes], object]] = {
    (b"POST", b"break"): _break,
    (b"POST", b"refuse"): _refuse,
    (b"POST", b"be"): _be,
    (b"POST", b"do"): _do,
    (b"POST", b"traits"): _change,
    (b"POST", b"mend"): _mend,
    (b"GET", b"seen"): _look,
}


def control(server: Any, request: Request) -> Answer:
    """Do what *request* says to the *server*."""
    command = ROUTES.get((request.method, request.path.removeprefix(CONTROL)))
    if command is None:
        return Answer(status=404)
    try:
        told = command(server, request.body)
    except (TypeError, ValueError) as wrong:
        told = {"error": str(wrong.args[0]), "faults": FAULTS, "deeds": list(DEEDS)}
        return Answer(status=400, body=msgspec.json.encode(told))
    return Answer(body=msgspec.json.encode(told))
