"""
The simulated hosted API, over HTTP.

    python -m bench.hosted.server --port 9000 --requests 60 --tokens 1000000
"""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from attrs import define, field
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import IReactorTime
from twisted.web.http import BAD_REQUEST, OK
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from bench.hosted.rules import Account

__all__ = ["Api"]

BYTES_OF_A_TOKEN = 4
ROW = [0.125] * 8


@define(eq=False)
class Api(Resource):
    """Answers as the account allows, after some time."""

    clock: IReactorTime = field(repr=False)
    account: Account
    takes_s: float
    inputs: int
    """Inputs that one request may have."""

    isLeaf: bool = True

    def __attrs_post_init__(self) -> None:
        Resource.__init__(self)

    def render_GET(self, request: Request) -> bytes:  # noqa: N802
        """Say which model there is, and that it is well."""
        request.setHeader(b"Content-Type", b"application/json")
        return json.dumps({"object": "list", "data": [{"id": "small"}]}).encode()

    def render_POST(self, request: Request) -> bytes | int:  # noqa: N802
        """Take a request for embeddings, or refuse it."""
        given = json.loads(request.content.read())["input"]
        texts = given if isinstance(given, list) else [given]
        if len(texts) > self.inputs:
            return _write(request, BAD_REQUEST, {"error": {"message": "too many"}})
        tokens = sum(len(text) // BYTES_OF_A_TOKEN + 1 for text in texts)
        status, lines = self.account.ask(tokens, self.clock.seconds())
        for name, value in lines:
            request.setHeader(name, value)
        if status != OK:
            return _write(request, status, {"error": {"message": "rate limit reached"}})
        answer = {
            "object": "list",
            "model": "small",
            "data": [
                {"object": "embedding", "index": at, "embedding": ROW}
                for at in range(len(texts))
            ],
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
        gone = list[Any]()
        request.notifyFinish().addErrback(gone.append)

        def reply() -> None:
            if not gone:
                request.write(_write(request, OK, answer))
                request.finish()

        self.clock.callLater(self.takes_s, reply)
        return NOT_DONE_YET


def _write(request: Request, status: int, answer: object) -> bytes:
    request.setResponseCode(status)
    request.setHeader(b"Content-Type", b"application/json")
    body = json.dumps(answer).encode()
    request.setHeader(b"Content-Length", b"%d" % len(body))
    return body


def main(arguments: Sequence[str]) -> None:
    """Serve until it is stopped."""
    parser = argparse.ArgumentParser(prog="python -m bench.hosted.server")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--requests", type=int, default=60, help="in a minute")
    parser.add_argument("--tokens", type=int, default=1_000_000, help="in a minute")
    parser.add_argument("--inputs", type=int, default=100, help="in a request")
    parser.add_argument("--takes-ms", type=float, default=150)
    options = parser.parse_args(arguments)
    running: Any = reactor
    api = Api(
        clock=running,
        account=Account.of(options.requests, options.tokens),
        takes_s=options.takes_ms / 1000,
        inputs=options.inputs,
    )
    TCP4ServerEndpoint(running, options.port, interface="127.0.0.1").listen(Site(api))
    running.run()


if __name__ == "__main__":
    main(sys.argv[1:])
