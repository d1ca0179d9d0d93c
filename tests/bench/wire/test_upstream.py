"""The mock upstream answers by the rule, however requests arrive."""

import json
import os
import socket
import time
from collections.abc import Iterator
from http.client import HTTPResponse
from pathlib import Path

import pytest

from abproxy.http.messages import Response
from abproxy.upstream.server_info import read_info
from bench.wire import rows, upstream
from bench.wire.contestants import Ground
from bench.wire.errors import CannotMeasure
from bench.wire.processes import Child, child, free_port
from bench.wire.workloads import Workload

DIMENSIONS = 8


@pytest.fixture
def connection(direct: Child) -> Iterator[socket.socket]:
    """Connect to it."""
    address = "127.0.0.1", int(direct.url.rpartition(":")[2])
    with socket.create_connection(address, timeout=10) as opened:
        yield opened


def post(body: bytes, path: bytes = b"/embed", more: bytes = b"") -> bytes:
    """Write a request."""
    head = b"POST %b HTTP/1.1\r\nHost: x\r\n%bContent-Length: %d\r\n\r\n"
    return head % (path, more, len(body)) + body


def answer(connection: socket.socket, method: str = "POST") -> tuple[int, bytes]:
    """Read one answer and nothing after it."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += connection.recv(1)
    lines = dict(line.split(b": ", 1) for line in head.splitlines()[1:-1])
    size = int(lines[b"content-length"]) if method != "HEAD" else 0
    body = b""
    while len(body) < size:
        body += connection.recv(size - len(body))
    return int(head.split()[1]), body


@pytest.mark.parametrize(
    ("body", "inputs"),
    [
        (b'{"inputs":["a","b"]}', [b'"a"', b'"b"']),
        (b'{"inputs":"a"}', [b'"a"']),
        (b' { "truncate" : true , "inputs" : [ "a" , "b" ] } ', [b'"a"', b'"b"']),
        (b'{"inputs":["a\\"],[\\\\"]}', [b'"a\\"],[\\\\"']),
        (b'{"x":{"inputs":["no"]},"inputs":[[1,2],"b"]}', [b"[1,2]", b'"b"']),
    ],
)
def test_embed_answers_by_the_rule(
    connection: socket.socket, body: bytes, inputs: list[bytes]
) -> None:
    """A row for each input, chosen by its bytes."""
    connection.sendall(post(body))

    assert answer(connection) == (200, rows.embed_answer(inputs, DIMENSIONS))


@pytest.mark.parametrize("form", ["float", "base64"])
def test_openai_answers_by_the_rule(connection: socket.socket, form: str) -> None:
    """In the form that was asked for, with as many tokens as the inputs have bytes."""
    body = b'{"input":["a","bc"],"encoding_format":"%b"}' % form.encode()
    connection.sendall(post(body, b"/v1/embeddings"))

    expected = rows.openai_answer(
        [b'"a"', b'"bc"'], DIMENSIONS, is_base64=form == "base64"
    )
    assert answer(connection) == (200, expected)
    assert json.loads(expected)["usage"] == {"prompt_tokens": 7, "total_tokens": 7}


def test_tokens_are_as_many_as_it_charges(connection: socket.socket) -> None:
    """One for each byte of an input."""
    connection.sendall(post(b'{"inputs":["a","bc"]}', b"/tokenize"))

    status, body = answer(connection)
    assert status == 200
    assert [len(tokens) for tokens in json.loads(body)] == [3, 4]


def test_requests_may_arrive_byte_by_byte(connection: socket.socket) -> None:
    """As they do over slow networks."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in post(b'{"inputs":"a"}'):
        connection.send(bytes([byte]))
        time.sleep(0.0005)

    assert answer(connection) == (200, rows.embed_answer([b'"a"'], DIMENSIONS))


def test_pipelined_requests_are_answered_in_order(connection: socket.socket) -> None:
    """All at once, and more than fit into the buffers of a connection."""
    texts = [b'"%d"' % number for number in range(3000)]
    connection.sendall(b"".join(post(b'{"inputs":%b}' % text) for text in texts))

    got = [answer(connection) for _ in texts]
    assert got == [(200, rows.embed_answer([text], DIMENSIONS)) for text in texts]


def test_an_answer_may_be_larger_than_a_buffer(ground: Ground) -> None:
    """Who reads slowly gets all of it."""
    workload = Workload(name="large", inputs=32, dimensions=1024)
    with ground.upstream(1024) as large:
        address = "127.0.0.1", int(large.url.rpartition(":")[2])
        with socket.create_connection(address, timeout=10) as slow:
            for number in range(20):
                slow.sendall(workload.request(number))
            time.sleep(0.1)

            got = [answer(slow) for _ in range(20)]

    assert got == [(200, workload.answer(number)) for number in range(20)]


def test_it_takes_its_time_if_it_is_told_to(ground: Ground) -> None:
    """As a model does; only the questions about itself are answered at once."""
    takes_ms = 200
    with ground.upstream(DIMENSIONS, takes_ms) as slow:
        address = "127.0.0.1", int(slow.url.rpartition(":")[2])
        with socket.create_connection(address, timeout=10) as opened:
            began_at = time.monotonic()
            opened.sendall(post(b'{"inputs":"a"}'))
            got = answer(opened)
            took_s = time.monotonic() - began_at

    assert got == (200, rows.embed_answer([b'"a"'], DIMENSIONS))
    assert took_s >= takes_ms / 1000


def test_the_connection_closes_if_the_client_says_so(connection: socket.socket) -> None:
    """After the answer."""
    connection.sendall(post(b'{"inputs":"a"}', more=b"Connection: close\r\n"))

    assert answer(connection)[0] == 200
    assert connection.recv(1) == b""


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (json.dumps({"inputs": ["a"] * 33}).encode(), 422),
        (b'{"inputs":[]}', 400),
        (b"{}", 400),
        (b'{"inputs":["a"', 400),
        (b"[]", 400),
        (b"", 400),
    ],
)
def test_what_makes_no_sense_is_refused(
    connection: socket.socket, body: bytes, status: int
) -> None:
    """And the connection goes on."""
    connection.sendall(post(body) + post(b'{"inputs":"a"}'))

    assert answer(connection)[0] == status
    assert answer(connection)[0] == 200


def test_no_chunked_requests_are_taken(connection: socket.socket) -> None:
    """The bench sends none, and a guess at where one ends would be worse."""
    connection.sendall(b"POST /embed HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")

    assert answer(connection)[0] == 400
    assert connection.recv(1) == b""


def test_abproxy_learns_the_limits(connection: socket.socket) -> None:
    """`/info` is as that of text-embeddings-inference."""
    connection.sendall(b"GET /info HTTP/1.1\r\nHost: x\r\n\r\n")

    status, body = answer(connection)
    facts = read_info(Response(status=status, reason=b"", headers=(), body=body))
    assert facts is not None
    assert (facts.max_batch_inputs, facts.max_inputs_in_flight) == (32, 512)
    assert facts.task == "embedding"


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("GET /health", 200),
        ("HEAD /health", 200),
        ("GET /", 404),
        ("POST /predict", 404),
        ("POST /v1/traces", 200),
    ],
)
def test_other_routes(connection: socket.socket, line: str, status: int) -> None:
    """There is not much more."""
    connection.sendall(f"{line} HTTP/1.1\r\nHost: x\r\n\r\n".encode())

    assert answer(connection, line.split(maxsplit=1)[0]) == (status, b"")


def test_answers_have_the_lines_of_the_real_one(connection: socket.socket) -> None:
    """So that reading heads costs what it costs in front of that."""
    connection.sendall(post(b'{"inputs":"a"}', more=b"Connection: close\r\n"))

    response = HTTPResponse(connection)
    response.begin()
    names = {name.lower() for name, _ in response.getheaders()}
    response.close()
    assert {"x-compute-type", "x-inference-time", "vary", "date"} <= names
    assert response.headers["x-compute-tokens"] == "3"


def test_a_taken_port_is_said_so(ground: Ground, tmp_path: Path) -> None:
    """In the words of the program that could not start."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = upstream.command(port, DIMENSIONS, tmp_path)

        with (
            pytest.raises(CannotMeasure, match="Address already in use"),
            child(
                "upstream",
                command,
                port,
                cores=ground.cores.upstream,
                folder=tmp_path,
            ),
        ):
            pass


def test_without_a_compiler_it_is_said_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Before anything is started."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)

    with pytest.raises(CannotMeasure, match=r"no C compiler.*apt-get install gcc"):
        upstream.compiled()


def test_it_is_compiled_once(ground: Ground) -> None:
    """The same source is the same program."""
    assert ground
    before_ns = upstream.compiled().stat().st_mtime_ns

    assert upstream.compiled().stat().st_mtime_ns == before_ns
    assert os.access(upstream.compiled(), os.X_OK)
    assert free_port()
