"""
Follows one warm lone call through the proxy, and writes down what it enters.

The proxy is made as `twistd` makes it, in this process; client and upstream are
plain sockets that are served between two turns of the reactor.  Its clock goes
on only when the upstream answers, so no timer falls in between.
"""

import json
import select
import socket
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from attrs import define, field
from twisted.internet import reactor as _reactor
from twisted.internet.tcp import Port

import abproxy
from abproxy.tap import Options, makeService

reactor: Any = _reactor

HOME = Path(abproxy.__file__).parent
MADE = "<attrs generated methods "
"""How the name of the file begins in which the code of attrs would be."""

WARM_UP = 2005
"""
Calls before the one that is followed.

So many that the trials of the beginning are over, and in the middle of a look: each
sixteenth call or so ends one, and enters some functions more.
"""

ANSWERING_S = 0.001
TURN_S = 0.05
"""How long the reactor waits for something to happen, at most."""

BODIES = tuple(b'{"inputs":"What is Vector Search? %d"}' % n for n in range(3))
CALLS = tuple(
    b"POST /embed HTTP/1.1\r\nHost: proxy\r\nAccept: */*\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
    % (len(body), body)
    for body in BODIES
)
"""Several, as one text in 32 is looked at more closely, by a hash that is by chance."""

INFO = json.dumps(
    {
        "model_id": "small",
        "model_type": {"embedding": {"pooling": "mean"}},
        "max_concurrent_requests": 512,
        "max_input_length": 512,
        "max_batch_tokens": 16384,
        "max_client_batch_size": 32,
        "version": "1.9.0",
    }
).encode()
ROW = b"[[0.1,0.2,0.3]]"


def _answer(body: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d"
    return head % len(body) + b"\r\n\r\n" + body


@define(eq=False)
class Upstream:
    """Answers whatever has come whenever it is its turn."""

    listener: socket.socket
    connections: list[socket.socket] = field(factory=list)

    def answer(self) -> int:
        """Answer what there is; say how many requests that were."""
        waiting, _, _ = select.select([self.listener, *self.connections], [], [], 0)
        answered = 0
        for each in waiting:
            if each is self.listener:
                self.connections.append(self.listener.accept()[0])
                continue
            request = each.recv(1 << 16)
            if request:
                is_call = request.startswith(b"POST /embed ")
                each.sendall(_answer(ROW if is_call else INFO))
                answered += 1
            else:
                self.connections.remove(each)
        return answered


@define(eq=False)
class Record:
    """Every function of Python's that is entered."""

    entered: Counter[CodeType] = field(factory=Counter)

    def note(self, frame: FrameType, event: str, _argument: object) -> None:
        """Take in what the interpreter tells."""
        if event == "call":
            self.entered[frame.f_code] += 1

    @contextmanager
    def running(self) -> Iterator[None]:
        """Take in what is entered meanwhile."""
        sys.setprofile(self.note)
        try:
            yield
        finally:
            sys.setprofile(None)

    def tell(self) -> dict[str, Any]:
        """Say what was entered, ours by name and others by package."""
        entered = {code for code in self.entered if _counts(code)}
        ours = {code for code in entered if _is_ours(code)}
        files = {code.co_filename for code in ours if not _is_made(code)}
        others = Counter(map(_package_of, entered - ours))
        return {
            "files": sorted(str(Path(file).relative_to(HOME)) for file in files),
            "classes": sorted(
                {_name_of(code).rpartition(".")[0] for code in ours}
                - {_module_of(code) for code in ours}
            ),
            "functions": sorted(map(_name_of, ours)),
            "calls": sum(self.entered[code] for code in ours),
            "others": dict(sorted(others.items())),
        }


def _counts(code: CodeType) -> bool:
    # A comprehension is no function of its own in newer Pythons.
    is_expression = code.co_name.startswith("<") and code.co_name != "<lambda>"
    return not is_expression and code.co_filename != __file__


def _is_made(code: CodeType) -> bool:
    """Whether attrs has written it; then it stands in no file."""
    return code.co_filename.startswith(MADE)


def _class_of(code: CodeType) -> str:
    """Name the class for which attrs has written it."""
    return code.co_filename.removeprefix(MADE).rstrip(">")


def _is_ours(code: CodeType) -> bool:
    if _is_made(code):
        return _class_of(code).startswith("abproxy.")
    return Path(code.co_filename).is_relative_to(HOME)


def _module_of(code: CodeType) -> str:
    if _is_made(code):
        return _class_of(code).rpartition(".")[0]
    parts = Path(code.co_filename).relative_to(HOME.parent).with_suffix("").parts
    return ".".join(parts)


def _name_of(code: CodeType) -> str:
    if _is_made(code):
        return f"{_class_of(code)}.{code.co_name}"
    return f"{_module_of(code)}.{code.co_qualname.replace('.<locals>', '')}"


def _package_of(code: CodeType) -> str:
    if _is_made(code):
        return _class_of(code).partition(".")[0]
    parts = Path(code.co_filename).parts
    if "site-packages" in parts:
        return parts[parts.index("site-packages") + 1].removesuffix(".py")
    return "Python itself"


@define(eq=False)
class Street:
    """One client, the proxy, and the upstream."""

    upstream: Upstream
    client: socket.socket
    now_s: float

    def call(self, call: bytes = CALLS[0], record: Record | None = None) -> bytes:
        """Make one call, and serve all until it is answered."""
        self.client.sendall(call)
        while not _has_come(self.client):
            self.turn(record)
        return self.client.recv(1 << 16)

    def turn(self, record: Record | None = None) -> None:
        """Let all do what they have to."""
        self.now_s += ANSWERING_S * self.upstream.answer()
        with record.running() if record else ExitStack():
            reactor.iterate(TURN_S)


def _has_come(end: socket.socket) -> bool:
    return bool(select.select([end], [], [], 0)[0])


def main() -> None:
    """Follow a call, and print what it enters as JSON."""
    listener = socket.create_server(("127.0.0.1", 0))
    upstream, number = Upstream(listener), listener.getsockname()[1]
    options = Options()
    options.parseOptions(
        ["--port=0", f"--inference-service-url=http://127.0.0.1:{number}"]
    )
    street = Street(upstream, socket.socket(), 1_700_000_000.0)
    reactor.seconds = lambda: street.now_s
    service: Any = makeService(options)
    service.startService()
    reactor.startRunning(installSignalHandlers=False)
    while not (ports := [each for each in reactor.getReaders() if type(each) is Port]):
        street.turn()
    street.client.connect(("127.0.0.1", ports[0].getHost().port))
    answers = {street.call() for _ in range(WARM_UP)}
    records = [Record() for _ in CALLS]
    for call, each in zip(CALLS, records, strict=True):
        answers.add(street.call(call, each))
    record = min(records, key=lambda each: each.entered.total())
    if not all(answer.startswith(b"HTTP/1.1 200 ") for answer in answers):
        raise SystemExit(f"this was no call: {answers}")
    print(json.dumps(record.tell()))
    reactor.getThreadPool().stop()  # the process would wait for it


if __name__ == "__main__":
    main()
