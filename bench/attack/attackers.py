"""
Clients that try to exhaust a proxy, and a neighbour who only wants an answer.

All are plain sockets in threads, against any proxy that listens on this machine.
"""

import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

from attrs import define, field

LOCALHOST = "127.0.0.1"
MEGABYTE = 1 << 20
JSON = b"Host: x\r\nContent-Type: application/json\r\n"
PIECE = b"x" * 65536
AT_ONCE = struct.pack("ii", 1, 0)
"""SO_LINGER: what is closed is reset."""


@define(kw_only=True, eq=False)
class Attack:
    """What attackers know of the proxy, and for how long they go on."""

    port: int
    key: bytes
    """A key that the proxy accepts; only some show it."""

    body_bytes: int
    """A body that is as large as may be."""

    is_over: threading.Event = field(factory=threading.Event)

    def connect(self, receive_bytes: int = 0) -> socket.socket:
        """Open a connection, perhaps with a buffer of *receive_bytes* to receive."""
        ours = socket.socket()
        if receive_bytes:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        ours.settimeout(1)
        try:
            ours.connect((LOCALHOST, self.port))
        except OSError:
            ours.close()
            raise
        return ours

    def head(self, *lines: bytes, length: int, path: bytes = b"/embed") -> bytes:
        """Write the head of a call."""
        more = b"".join(line + b"\r\n" for line in lines)
        length_line = b"Content-Length: %d\r\n\r\n" % length
        return b"POST %b HTTP/1.1\r\n%b%b%b" % (path, JSON, more, length_line)

    @property
    def shown(self) -> bytes:
        """The line with the key."""
        return b"Authorization: Bearer " + self.key


Attacker = Callable[[Attack], None]


def _feed(attack: Attack, count: int, first: bytes, then: bytes, wait_s: float) -> None:
    """Keep *count* connections that send something *first*, and *then* go on."""
    with ExitStack() as stack:
        open_ones: list[socket.socket] = []
        while not attack.is_over.is_set():
            with suppress(OSError):
                while len(open_ones) < count:
                    ours = stack.enter_context(attack.connect())
                    open_ones.append(ours)
                    ours.sendall(first)
            for ours in list(open_ones):
                try:
                    ours.settimeout(0)
                    ours.send(then)
                except BlockingIOError:
                    continue
                except OSError:
                    ours.close()
                    open_ones.remove(ours)
            time.sleep(wait_s)


def strangers(attack: Attack) -> None:
    """Send large bodies without a key."""
    _feed(attack, 30, attack.head(length=attack.body_bytes), PIECE, 0.005)


def slow_bodies(attack: Attack) -> None:
    """Send half of a large body, with the key, and then a byte now and then."""
    head = attack.head(attack.shown, length=attack.body_bytes)
    _feed(attack, 30, head + b" " * (attack.body_bytes // 2), b" ", 0.2)


def unfinished_heads(attack: Attack) -> None:
    """Send heads that never end, without a key."""
    _feed(attack, 300, b"GET / HTTP/1.1\r\nCookie: " + b"x" * 60_000, b"x", 0.5)


def slow_readers(attack: Attack) -> None:
    """Ask for answers of some megabytes, and do not read them."""
    texts = b",".join([b'"a"'] * 2000)
    body = b'{"inputs":[%b]}' % texts
    ask = attack.head(attack.shown, length=len(body)) + body
    with ExitStack() as stack:
        while not attack.is_over.wait(0.3):
            with suppress(OSError):
                stack.enter_context(attack.connect(4096)).sendall(ask)


def many_items(attack: Attack) -> None:
    """Send, with the key, bodies that are more work than bytes."""
    room = attack.body_bytes - 100
    bodies = [
        b'{"inputs":[%b[1]]}' % (b"[1]," * (room // 4)),
        b'{"inputs":[%b1]}' % (b"1," * (room // 2)),
        b'{"inputs":["a"]%b}' % (b',"":0' * (room // 5)),
        b'{"inputs":[%b""]}' % (b'"",' * (room // 3)),
        b'{"inputs":[[%b1],"a",1]}' % (b"1," * (room // 2)),
    ]
    at = 0
    while not attack.is_over.wait(0.2):
        at += 1
        body = bodies[at % len(bodies)]
        with suppress(OSError), attack.connect() as ours:
            ours.settimeout(5)
            ours.sendall(attack.head(attack.shown, length=len(body)) + body)
            ours.recv(1)


def long_names(attack: Attack) -> None:
    """Send header names of 60 kB, each another one."""
    at = 0
    while not attack.is_over.wait(0.01):
        at += 1
        with suppress(OSError), attack.connect() as ours:
            name = b"X%d-%b: 1" % (at, b"a" * 60_000)
            ours.sendall(attack.head(name, length=0))
            ours.recv(1)


def slow_heads(attack: Attack) -> None:
    """Send a line of a head now and then, on many connections, without a key."""
    _feed(attack, 300, b"POST /embed HTTP/1.1\r\nHost: x\r\n", b"X: y\r\n", 0.2)


def resets(attack: Attack) -> None:
    """Ask, with the key, and reset the connection before the answer."""
    body = b'{"inputs":["a"]}'
    ask = attack.head(attack.shown, length=len(body)) + body
    while not attack.is_over.wait(0.001):
        with suppress(OSError), attack.connect() as ours:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
            ours.sendall(ask)


def idle(attack: Attack) -> None:
    """Open a thousand connections, and send nothing."""
    with ExitStack() as stack:
        for _ in range(1000):
            if attack.is_over.wait(0.001):
                return
            with suppress(OSError):
                stack.enter_context(attack.connect())
        attack.is_over.wait()


def preflights(attack: Attack) -> None:
    """Ask for preflights on all paths, and for pages, without a key."""
    lines = b"Host: x\r\nOrigin: http://x\r\nAccess-Control-Request-Method: POST\r\n"
    ask = b"OPTIONS /embed%d HTTP/1.1\r\n%b\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n"
    at = 0
    while not attack.is_over.wait(0.001):
        at += 1
        with suppress(OSError), attack.connect() as ours:
            ours.sendall(ask % (at, lines))
            ours.recv(4096)


def half_closed(attack: Attack) -> None:
    """Announce bodies, with and without the key, and close before they are whole."""
    heads = (
        attack.head(length=9),
        attack.head(attack.shown, length=9),
        attack.head(attack.shown, length=9, path=b"/rerank"),
        attack.head(attack.shown, b"Expect: 100-continue", length=9),
    )
    at = 0
    while not attack.is_over.wait(0.002):
        at += 1
        with suppress(OSError), attack.connect() as ours:
            ours.sendall(heads[at % len(heads)] + b"1234")
            ours.shutdown(socket.SHUT_WR)
            ours.recv(4096)


GREEDY: Sequence[Attacker] = (
    strangers,
    slow_bodies,
    unfinished_heads,
    slow_readers,
    many_items,
    long_names,
)
"""Those that want memory."""

ALL: Sequence[Attacker] = (
    *GREEDY,
    slow_heads,
    resets,
    idle,
    preflights,
    half_closed,
)


@contextmanager
def attacked(attack: Attack, attackers: Sequence[Attacker] = GREEDY) -> Iterator[None]:
    """Let *attackers* do their work meanwhile."""
    threads = [threading.Thread(target=each, args=(attack,)) for each in attackers]
    for each in threads:
        each.start()
    try:
        yield
    finally:
        attack.is_over.set()
        for each in threads:
            each.join()


def neighbour(attack: Attack, seconds: float) -> list[float]:
    """Call for some *seconds*; return how long each call took, all answered."""
    body = b'{"inputs":["a"]}'
    return _ask(attack, attack.head(attack.shown, length=len(body)) + body, seconds)


def prober(attack: Attack, seconds: float) -> list[float]:
    """Ask for some *seconds* whether the proxy lives; return how long each took."""
    return _ask(attack, b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n", seconds)


def _ask(attack: Attack, request: bytes, seconds: float) -> list[float]:
    took_s = []
    with attack.connect() as ours:
        ours.settimeout(30)
        ends_at = time.monotonic() + seconds
        while time.monotonic() < ends_at:
            began = time.monotonic()
            ours.sendall(request)
            answer = _read_answer(ours)
            if not answer.startswith(b"HTTP/1.1 200 "):
                raise ValueError(answer)
            took_s.append(time.monotonic() - began)
            time.sleep(0.02)
    return took_s


def _read_answer(ours: socket.socket) -> bytes:
    answer = b""
    while True:
        head, end, body = answer.partition(b"\r\n\r\n")
        length = re.search(rb"Content-Length: (\d+)", head)
        if end and length is not None and len(body) >= int(length[1]):
            return answer
        piece = ours.recv(1 << 20)
        if not piece:
            raise EOFError(answer)
        answer += piece
