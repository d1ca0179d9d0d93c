"""The server that breaks does what it is told, so that others can be tested."""

from typing import Any

import msgspec
import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.error import ConnectError

from bench.breakable import Fault, Traits, row_of
from bench.breakable.__main__ import parse
from support.client import connect, until
from support.upstream import breakable


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("too-few", Fault(fault="too-few")),
        ("cut=20", Fault(fault="cut", value=20)),
        ("refuse=503x3", Fault(fault="refuse", value=503, times=3)),
    ],
)
def test_a_fault_can_be_asked_for_on_the_command_line(text: str, fault: Fault) -> None:
    """Its value and how often it happens may be left out."""
    options = vars(parse(["--break", text, "--permits", "64", "--chunked"]))

    assert options["break"] == [fault]
    assert (options["permits"], options["chunked"]) == (64, True)


async def _post(port: int, path: str, body: Any) -> Any:
    caller = await connect(port)
    answer = await caller.post(path, msgspec.json.encode(body))
    caller.hang_up()
    return answer


@ensureDeferred
async def test_it_is_told_over_http_what_to_do() -> None:
    """A fault is met as often as was asked for."""
    async with breakable(Traits()) as server:
        await _post(server.port, "/-/break", {"fault": "refuse", "times": 2})

        statuses = [
            (await _post(server.port, "/embed", {"inputs": ["a"]})).status
            for _ in range(3)
        ]

        assert statuses == [429, 429, 200]


@ensureDeferred
async def test_an_unknown_fault_is_answered_with_those_there_are() -> None:
    """Whoever experiments need not read the code."""
    async with breakable(Traits()) as server:
        answer = await _post(server.port, "/-/break", {"fault": "flood"})

        assert answer.status == 400
        assert "cut" in answer.json["faults"]


@pytest.mark.parametrize(
    ("inputs", "status", "kind"),
    [
        (["a"] * 5, 422, "Validation"),
        (["a", ""], 400, "Empty"),
        (["a", "BAD"], 422, "Validation"),
        (["a"] * 4, 429, "Overloaded"),
    ],
)
@ensureDeferred
async def test_it_refuses_what_tei_refuses(
    inputs: list[str], status: int, kind: str
) -> None:
    """In the same words, so that the proxy understands them."""
    async with breakable(Traits(max_batch=4, permits=3)) as server:
        answer = await _post(server.port, "/embed", {"inputs": inputs})

        assert (answer.status, answer.json["error_type"]) == (status, kind)


@ensureDeferred
async def test_when_it_dies_its_port_is_closed() -> None:
    """As a process that is gone has no port."""
    async with breakable(Traits(restart_s=60)) as server:
        caller = await connect(server.port)
        dying = caller.embed("DEADLY").addErrback(lambda _: "died")

        assert await dying == "died"
        with pytest.raises(ConnectError):
            await connect(server.port)


MOODS_AND_ANSWERS: list[tuple[str, list[str], int]] = [
    ("llama.cpp", ["a", "b" * 513], 500),
    ("llama.cpp", ["NO-NORM"], 500),
    ("firewall", ["a", "x; DROP TABLE y"], 403),
    ("hasty-gateway", ["a"] * 5, 504),
    ("hasty-gateway", ["a"] * 4, 200),
    ("ten-inputs", ["a"] * 11, 400),
    ("one-input", ["a", "b"], 400),
    ("quota", ["a" * 100, "b" * 101], 429),
    ("picky", ["a"], 403),
    ("identity", ["a"], 401),
    ("broken", ["a"], 500),
]


@pytest.mark.parametrize(("mood", "inputs", "status"), MOODS_AND_ANSWERS)
@ensureDeferred
async def test_it_refuses_what_others_refuse(
    mood: str, inputs: list[str], status: int
) -> None:
    """Told to be like another server or a gateway; mended, it refuses nothing."""
    async with breakable(Traits()) as server:
        await _post(server.port, "/-/be", {"mood": mood})

        refused = await _post(server.port, "/embed", {"inputs": inputs})
        await _post(server.port, "/-/mend", {})
        mended = await _post(server.port, "/embed", {"inputs": inputs})

        assert (refused.status, mended.status) == (status, 200)


@ensureDeferred
async def test_a_refusal_can_be_put_together_over_http() -> None:
    """What is not said of a request does not matter, and HTML is sent as HTML."""
    refusal = {"text": "x", "inputs": 1, "status": 418, "body": "<p>no</p>"}
    async with breakable(Traits()) as server:
        await _post(server.port, "/-/refuse", refusal)

        one, both = [
            await _post(server.port, "/embed", {"inputs": inputs})
            for inputs in (["x"], ["x", "y"])
        ]

        assert one.status == 200
        assert (both.status, both.body) == (418, b"<p>no</p>")
        assert both.header("Content-Type") == "text/html"


@ensureDeferred
async def test_an_unknown_mood_is_answered_with_those_there_are() -> None:
    """As an unknown fault is."""
    async with breakable(Traits()) as server:
        answer = await _post(server.port, "/-/be", {"mood": "cheerful"})

        assert answer.status == 400
        assert "firewall" in answer.json["error"]


SHAPED: dict[str, bytes] = {
    "no-index": b'"data":[{"object":"embedding","embedding":%b}]',
    "null-index": b'"data":[{"object":"embedding","embedding":%b,"index":null}]',
    "no-zero-index": b'"data":[{"object":"embedding","embedding":%b}]',
    "bare": b'[{"object":"embedding","embedding":%b,"index":0}]',
    "bills": b'"cost":0.000000130,"prompt_tokens_details":{"cached_tokens":0}}',
}


@pytest.mark.parametrize("mood", SHAPED)
@ensureDeferred
async def test_it_writes_rows_as_others_write_them(mood: str) -> None:
    """The rows themselves are the same in each form."""
    row = msgspec.json.encode(row_of("a"))
    async with breakable(Traits()) as server:
        await _post(server.port, "/-/be", {"mood": mood})

        answer = await _post(server.port, "/v1/embeddings", {"input": "a"})

        expected = SHAPED[mood] % row if b"%b" in SHAPED[mood] else SHAPED[mood]
        assert expected in answer.body


@ensureDeferred
async def test_one_row_can_hold_a_word_that_is_no_json() -> None:
    """As models with a broken layer answer some texts."""
    async with breakable(Traits(nan_text="NAN", dimensions=2)) as server:
        answer = await _post(server.port, "/embed", {"inputs": ["a", "NAN"]})

        assert b",[NaN," in answer.body


@ensureDeferred
async def test_a_row_can_depend_on_all_inputs_of_its_request() -> None:
    """With late chunking the same text has another row beside another text."""
    async with breakable(Traits()) as server:
        answers = [
            await _post(
                server.port, "/embed", {"inputs": inputs, "late_chunking": True}
            )
            for inputs in (["a", "b"], ["a", "b"], ["a", "c"])
        ]

        one, same, other = [answer.json[0] for answer in answers]
        assert one == same != other


@ensureDeferred
async def test_another_model_has_other_rows_and_says_that_it_is_another() -> None:
    """So that rows of two models in one answer would be seen."""
    async with breakable(Traits(model="other", sha="1f")) as server:
        caller = await connect(server.port)

        answer = await caller.embed("a")
        info = await caller.get("/info")
        models = await caller.get("/v1/models")
        caller.hang_up()

        assert answer.status == 200
        assert not answer.is_for(["a"])
        assert (info.json["model_id"], info.json["model_sha"]) == ("other", "1f")
        assert models.status == 404


@ensureDeferred
async def test_a_gateway_answers_while_the_server_behind_it_restarts() -> None:
    """Its port stays open, and what was in flight is answered as well."""
    async with breakable(Traits(gateway=502, restart_s=0.2)) as server:
        deadly = await _post(server.port, "/embed", {"inputs": ["DEADLY"]})
        other = await _post(server.port, "/embed", {"inputs": ["a"]})
        await until(lambda: not server._is_away)
        later = await _post(server.port, "/embed", {"inputs": ["a"]})

        assert [deadly.status, other.status, later.status] == [502, 502, 200]
        assert b"502 Bad Gateway" in deadly.body


@ensureDeferred
async def test_no_tei_it_lists_its_model_and_sends_slashes_elsewhere() -> None:
    """As servers on Starlette do."""
    async with breakable(Traits(openai=True)) as server:
        caller = await connect(server.port)

        info = await caller.get("/info")
        models = await caller.get("/v1/models")
        slash = await caller.get("/v1/models/")

        assert [info.status, models.status, slash.status] == [404, 200, 307]
        assert models.json["data"][0]["id"] == "breakable"
        assert slash.header("Location") == "http://proxy/v1/models"
        caller.hang_up()


@ensureDeferred
async def test_a_gateway_gives_up_after_its_deadline() -> None:
    """The server forgets the request, and answers the next one."""
    async with breakable(Traits(ms_per_input=50, deadline_ms=75)) as server:
        late = await _post(server.port, "/embed", {"inputs": ["a", "b"]})
        early = await _post(server.port, "/embed", {"inputs": ["a"]})

        assert (late.status, early.status) == (504, 200)
        assert server.work.inputs == 0


@pytest.mark.parametrize("first", ["die", "turn_away", "accept_slowly"])
@pytest.mark.parametrize("second", ["die", "turn_away", "accept_slowly"])
@ensureDeferred
async def test_one_failure_after_another_comes_to_an_end(
    first: str, second: str
) -> None:
    """What is done to it while it is away does not keep it away for good."""
    async with breakable(Traits()) as server:
        getattr(server, first)(0.01)
        getattr(server, second)(0.01)

        await until(lambda: not server._timer)

        answer = await _post(server.port, "/embed", {"inputs": ["a"]})
        assert answer.is_for(["a"])


@ensureDeferred
async def test_it_quotes_a_request_that_it_refuses() -> None:
    """So that an answer to the wrong caller shows whose it was."""
    async with breakable(Traits(quotes=True)) as server:
        refused = await _post(server.port, "/embed", {"inputs": ["BAD one"]})
        answered = await _post(server.port, "/embed", {"inputs": ["good one"]})

        assert b"BAD one" in refused.body
        assert b"good one" not in answered.body
