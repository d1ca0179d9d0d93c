"""From results to the one reply that a caller gets."""

import json
from collections.abc import Sequence

import pytest

from abproxy.dialects.call import PartResult, Rows
from abproxy.dialects.openai import OPENAI
from abproxy.dialects.reply import error_reply, write_answer
from abproxy.dialects.tei import EMBED
from abproxy.errors import Overloaded, ProxyError, Unauthorized, UpstreamTimeout
from abproxy.http.messages import HeaderList, Response
from support.batching import call_of


def reply(*headers: tuple[bytes, bytes]) -> Response:
    """Make an upstream's reply."""
    return Response(status=200, reason=b"Fine", headers=headers, body=b"[[1],[2]]")


def result(rows: Sequence[bytes], *headers: tuple[bytes, bytes]) -> PartResult:
    """Make a part's rows of a batch's answer."""
    return PartResult(response=reply(*headers), rows=Rows(raw=rows))


def told(headers: HeaderList) -> HeaderList:
    """Leave out what every shared answer says of our own."""
    return tuple(line for line in headers if line[0] != b"Server-Timing")


def test_a_call_that_was_alone_gets_the_reply_itself() -> None:
    """Not a byte of it is touched."""
    alone = reply((b"ETag", b"x"))

    assert write_answer(call_of("a"), [PartResult(response=alone)]) is alone


def test_rows_of_all_parts_are_one_body() -> None:
    """The client of a call that was split does not notice."""
    results = [result([b"[1]", b"[2]"]), result([b"[3]"])]

    written = write_answer(call_of("a", "b", "c"), results)

    assert written.body == b"[[1],[2],[3]]"
    assert (written.status, written.reason) == (200, b"Fine")


def test_characters_are_counted_for_the_call() -> None:
    """As TEI counts them: code points of texts, ids of token lists."""
    line = (b"X-Compute-Characters", b"999")

    written = write_answer(call_of("é😀", "b"), [result([b"[1]", b"[2]"], line)])

    assert told(written.headers) == ((b"X-Compute-Characters", b"3"),)


@pytest.mark.parametrize(
    "name",
    [
        b"X-Compute-Tokens",
        b"x-compute-tokens",
        b"ETag",
        b"Set-Cookie",
        b"Content-Digest",
        b"Digest",
        b"Content-MD5",
        b"Signature-Input",
        b"x-litellm-response-cost",
        b"X-Litellm-Response-Cost-Original",
        b"X-Total-Cost",
        b"X-Prompt-Tokens",
        b"x-amzn-bedrock-input-token-count",
        b"num_tokens",
        b"X-Usage",
    ],
)
def test_what_is_true_of_the_batch_only_is_left_out(name: bytes) -> None:
    """No session of another client, and nothing that cannot be known."""
    lines = ((name, b"x"), (b"Vary", b"origin"))

    written = write_answer(call_of("a"), [result([b"[1]"], *lines)])

    assert told(written.headers) == ((b"Vary", b"origin"),)


@pytest.mark.parametrize(
    "name",
    [
        b"X-Ratelimit-Remaining-Tokens",
        b"x-rate-limit-limit-tokens",
        b"X-Request-Id",
        b"X-Compute-Time",
        b"X-Costume",
        b"Openai-Processing-Ms",
    ],
)
def test_what_is_true_of_each_call_of_a_batch_stays(name: bytes) -> None:
    """What an account has left is the same for all of them."""
    written = write_answer(call_of("a"), [result([b"[1]"], (name, b"7"))])

    assert told(written.headers) == ((name, b"7"),)


def test_an_error_says_what_to_do_in_the_words_of_the_route() -> None:
    """TEI's clients read `error`, those of OpenAI `message`."""
    error = UpstreamTimeout("slow")

    tei, openai = error_reply(error, EMBED), error_reply(error, OPENAI)

    assert json.loads(tei.body) == {"error": "slow", "error_type": "Timeout"}
    assert json.loads(openai.body) == {
        "message": "slow",
        "code": 504,
        "type": "Timeout",
    }
    assert tei.status == openai.status == 504


def test_overload_says_when_to_come_back() -> None:
    """In whole seconds, as HTTP has it."""
    written = error_reply(Overloaded("full", retry_after_s=7), EMBED)

    assert (b"Retry-After", b"7") in written.headers


def test_a_missing_key_is_answered_with_an_empty_body() -> None:
    """As TEI does."""
    written = error_reply(Unauthorized(), EMBED)

    assert (written.status, written.body) == (401, b"")


@pytest.mark.parametrize(
    "message", ['"quoted"\n\x00', "é😀"], ids=["quotes", "unicode"]
)
def test_any_message_makes_a_body(message: str) -> None:
    """Foreign errors may say anything."""
    body = error_reply(ProxyError(message), EMBED).body

    assert json.loads(body)["error_type"] == "Backend"


def test_a_shared_answer_says_where_the_time_went() -> None:
    """Of a call that was split the slowest part counts."""
    results = [
        PartResult(
            response=reply(),
            rows=Rows(raw=[b"[1]"]),
            calls=calls,
            queue_s=queue_s,
            upstream_s=upstream_s,
        )
        for calls, queue_s, upstream_s in [(1, 0.25, 0.5), (3, 0.125, 0.75)]
    ]

    answer = write_answer(call_of("a", "b"), results)

    [timing] = [value for name, value in answer.headers if name == b"Server-Timing"]
    assert timing == b'queue;dur=250.0, upstream;dur=750.0, batch;desc="3 calls"'
