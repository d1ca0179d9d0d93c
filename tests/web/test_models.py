"""Which of several models a request is for."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from abproxy.http.messages import Response
from abproxy.web.fast.request import FastRequest
from support.models import SeveralModels, several_models, tables

NAMES = 'names = ["text-embedding-3-small", "org/small"]\nmodel = "org/small-v2"'
FILE = tables(small=NAMES, large="")
ways = pytest.mark.parametrize("is_fast", [True, False])


@pytest.fixture(params=[True, False], ids=["fast", "klein"])
def here(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SeveralModels]:
    """Give a proxy of two models, on either path."""
    with several_models(tmp_path, FILE, is_fast=request.param) as proxy:
        yield proxy


def test_the_model_in_the_body_is_asked(here: SeveralModels) -> None:
    """Each call goes to the server of the model that it names."""
    client = here.connect()
    for name in ("large", "small", "large"):
        here.call("/v1/embeddings", client, model=name, input="a")
        here.answer_all()

    assert len(here.sent("large")) == 2
    assert len(here.sent("small")) == 1


def test_what_names_no_model_is_for_the_first(here: SeveralModels) -> None:
    """As with one model alone."""
    here.call("/v1/embeddings", input="a")
    here.call("/embed", inputs="a")
    here.answer_all()

    assert [path for path, _ in here.sent("small")] == [b"/v1/embeddings", b"/embed"]
    assert not here.sent("large")


def test_the_default_is_the_one_that_is_marked(tmp_path: Path) -> None:
    """Wherever it stands in the file."""
    with several_models(tmp_path, tables(a="", b="default = true")) as here:
        here.call("/embed", inputs="x")
        here.answer_all()

        assert len(here.sent("b")) == 1


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/models/large/embed", b"/embed"),
        ("/models/large/v1/embeddings", b"/v1/embeddings"),
        ("/models/large/embed?x=1", b"/embed?x=1"),
    ],
)
def test_the_model_in_the_path_is_asked(
    here: SeveralModels, path: str, route: bytes
) -> None:
    """The server sees its own path, and calls are batched as ever."""
    here.call(path, inputs="a", input="a")
    here.answer_all()

    assert [path for path, _ in here.sent("large")] == [route]


@pytest.mark.parametrize("name", ["org/small", "org%2Fsmall", "org%2fsmall"])
def test_a_name_with_a_slash_is_found_in_a_path(here: SeveralModels, name: str) -> None:
    """As it is, or as clients write it that quote each part of a path."""
    here.call(f"/models/{name}/embed", inputs="a")
    here.answer_all()

    assert len(here.sent("small")) == 1


def test_the_path_counts_more_than_the_body(here: SeveralModels) -> None:
    """The body's model is the server's own business then."""
    here.call("/models/large/v1/embeddings", model="small", input="a")
    here.answer_all()

    [(_, body)] = here.sent("large")
    assert msgspec.json.decode(body) == {"model": "small", "input": "a"}


@pytest.mark.parametrize("name", ["small", "text-embedding-3-small", "org/small"])
@pytest.mark.parametrize("path", ["/v1/embeddings", "/models/small/v1/embeddings"])
def test_the_server_hears_its_own_name_of_the_model(
    here: SeveralModels, name: str, path: str
) -> None:
    """Whatever name the caller knows it by."""
    here.call(path, input="a", user='"model":"small"', model=name)
    here.answer_all()

    [(_, body)] = here.sent("small")
    assert msgspec.json.decode(body)["model"] == "org/small-v2"
    assert msgspec.json.decode(body)["user"] == '"model":"small"'


def test_a_server_that_may_have_several_models_hears_which(tmp_path: Path) -> None:
    """A call for text-embeddings-inference names none; that server would choose one."""
    openai = 'dialect = "openai"'
    with several_models(tmp_path, tables(small=openai, large=openai)) as here:
        here.call("/models/large/embed", inputs="a")
        here.call("/embed", inputs="a")
        sent = [here.sent(name) for name in ("large", "small")]
        here.answer_all()

    names = [msgspec.json.decode(body)["model"] for [(_, body)] in sent]
    assert names == ["large", "small"]


def test_only_the_model_of_the_call_is_renamed(here: SeveralModels) -> None:
    """Not the member of another object in it."""
    body = b'{"input":"a","x":{"model":"small"},"model": "small"}'
    client = here.connect()
    client.embed(body, path="/v1/embeddings")
    here.answer_all()

    [(_, sent)] = here.sent("small")
    assert sent == b'{"input":"a","x":{"model":"small"},"model":"org/small-v2"}'


@pytest.mark.parametrize(
    "body",
    [
        b'{"input":"a","model":"large","model":"small"}',
        b'{"input":"a","mod\\u0065l":"small"}',
    ],
)
def test_a_body_that_is_ambiguous_is_left_as_it_is(
    here: SeveralModels, body: bytes
) -> None:
    """Servers differ in what they make of a member that is there twice."""
    assert here.ask("POST", "/v1/embeddings", body).body == b"small"

    assert here.elsewhere["small"].asked == [(b"POST", b"/v1/embeddings", body)]


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"large","input":"a","x":NaN}',
        b'{"input":"half a smiley \\ud83d","model": "large"}',
        b'\xef\xbb\xbf{"model":"large","input":"a"}',
        '{"model":"large","input":"a"}'.encode("utf-16"),
        '{"model":"large","input":"a"}'.encode("utf-32-be"),
    ],
)
def test_what_some_servers_take_for_json_goes_to_the_model_that_it_names(
    here: SeveralModels, body: bytes
) -> None:
    """The default would answer with rows of another model."""
    assert here.ask("POST", "/v1/embeddings", body).body == b"large"

    assert here.elsewhere["large"].asked == [(b"POST", b"/v1/embeddings", body)]


def test_all_names_of_a_model_share_batches(tmp_path: Path) -> None:
    """They are one model, and one queue."""
    lines = {"MAX_WAIT_TIME": "1000"}
    with several_models(tmp_path, FILE, **lines) as here:
        for name in ("small", "org/small"):
            here.call("/v1/embeddings", model=name, input=[name])
        here.clock.advance(1)
        here.answer_all()

        [(_, body)] = here.sent("small")
        assert body == b'{"input":["small","org/small"],"model":"org/small-v2"}'


def test_models_share_no_batch(tmp_path: Path) -> None:
    """Each has a queue of its own, also where they are otherwise alike."""
    with several_models(tmp_path, FILE, MAX_WAIT_TIME="1000") as here:
        for name in ("small", "large"):
            here.call(f"/models/{name}/embed", inputs=[name])
        here.clock.advance(1)
        here.answer_all()

        assert here.sent("small") == [(b"/embed", b'{"inputs":["small"]}')]
        assert here.sent("large") == [(b"/embed", b'{"inputs":["large"]}')]


def test_the_bytes_of_an_answer_stay_as_they_are(here: SeveralModels) -> None:
    """Also where the answer names the model as its server does."""
    client = here.call("/v1/embeddings", model="small", input="a")
    body = b'{"model":"org/small-v2","data":[{"index":0,"embedding":[1]}]}'
    reply = Response(status=200, reason=b"OK", headers=(), body=body)
    here.upstreams["small"].open[0].done.callback(reply)

    [answer] = client.answers()
    assert answer.body == body


def test_an_unknown_model_is_a_404_of_the_openai_api(here: SeveralModels) -> None:
    """Its client raises NotFoundError, whose code it shows; the names are there."""
    client = here.call("/v1/embeddings", model="huge", input="a")

    [answer] = client.answers()
    assert answer.status == 404
    assert answer.json == {
        "error": {
            "message": "there is no model 'huge'; there are: small, "
            "text-embedding-3-small, org/small, large",
            "type": "invalid_request_error",
            "param": "model",
            "code": "model_not_found",
        }
    }


def test_an_unknown_model_in_a_path_of_tei_is_a_404_as_tei_writes_errors(
    here: SeveralModels,
) -> None:
    """Its clients look for `error`."""
    client = here.call("/models/huge/embed", inputs="a")

    [answer] = client.answers()
    assert answer.status == 404
    assert answer.json["error"].startswith("there is no model 'huge'; there are: small")
    assert answer.json["error_type"] == "NotFound"


def test_an_unknown_model_in_a_path_of_the_openai_api_is_told_as_there(
    here: SeveralModels,
) -> None:
    """Wherever the name stands."""
    client = here.call("/models/huge/v1/embeddings", input="a")

    [answer] = client.answers()
    assert answer.json["error"]["code"] == "model_not_found"


def test_names_are_for_those_who_have_a_key(tmp_path: Path) -> None:
    """A stranger is asked for the key first."""
    with several_models(tmp_path, FILE, API_KEY="sesame") as here:
        client = here.call("/v1/embeddings", model="huge", input="a")

        assert [answer.status for answer in client.answers()] == [401]
        assert here.ask("GET", "/v1/models").status == 401
        assert here.ask("GET", "/v1/models", key="sesame").status == 200


@pytest.mark.parametrize("path", ["/v1/models", "/models"])
def test_the_models_are_listed(here: SeveralModels, path: str) -> None:
    """In the form of the OpenAI API, by each of their names."""
    listed = here.ask("GET", path).json

    assert listed["object"] == "list"
    assert [each["id"] for each in listed["data"]] == [
        "small",
        "text-embedding-3-small",
        "org/small",
        "large",
    ]
    assert listed["data"][1] == {
        "id": "text-embedding-3-small",
        "object": "model",
        "created": 1_700_000_000,
        "owned_by": "abproxy",
        "root": "small",
    }


@pytest.mark.parametrize("path", ["/v1/models/org/small", "/models/org%2Fsmall"])
def test_one_model_is_described(here: SeveralModels, path: str) -> None:
    """As `client.models.retrieve` asks for it."""
    assert here.ask("GET", path).json["root"] == "small"


def test_an_unknown_model_is_not_described(here: SeveralModels) -> None:
    """The error is that of any request for it."""
    answer = here.ask("GET", "/v1/models/huge")

    assert answer.status == 404
    assert answer.json["error"]["code"] == "model_not_found"


@pytest.mark.parametrize("path", ["/modelslarge", "/v1/modelslarge"])
def test_a_path_that_only_begins_so_is_relayed(here: SeveralModels, path: str) -> None:
    """It is no page of models."""
    assert here.ask("GET", path).body == b"small"


def test_a_path_below_a_model_is_relayed_to_its_server(here: SeveralModels) -> None:
    """`/info`, and whatever else it has."""
    assert here.ask("GET", "/models/large/info").body == b"large"
    assert here.ask("GET", "/info").body == b"small"

    assert here.elsewhere["large"].asked == [(b"GET", b"/info", b"")]


def test_a_relayed_request_goes_to_the_model_in_its_body(here: SeveralModels) -> None:
    """As for routes that are not batched, and its server's own name is in it."""
    body = b'{"model":"small","documents":["a"],"query":"q"}'

    assert here.ask("POST", "/v1/rerank", body).body == b"small"
    assert here.ask("POST", "/v1/rerank", b'{"model":"large"}').body == b"large"

    renamed = body.replace(b"small", b"org/small-v2")
    assert here.elsewhere["small"].asked == [(b"POST", b"/v1/rerank", renamed)]


@pytest.mark.parametrize(
    "body", [b"no JSON", b"[]", b'{"model":7}', b'{"x":1}', b'{"model":"\xff"}']
)
def test_a_body_that_names_no_model_is_for_the_default(
    here: SeveralModels, body: bytes
) -> None:
    """What is wrong with it is for the server to say."""
    assert here.ask("POST", "/v1/other", body).body == b"small"

    assert here.elsewhere["small"].asked == [(b"POST", b"/v1/other", body)]


def test_a_location_leads_back_to_the_model(here: SeveralModels) -> None:
    """A redirect of the server stays below the path that names the model."""
    there = here.elsewhere["large"]
    there.render = lambda request: (  # type: ignore[method-assign]
        request.redirect(b"http://large:8080/docs/") or b""
    )

    answer = here.ask("GET", "/models/large/docs")

    assert answer.header("Location") == "/models/large/docs/"


def test_an_error_of_ours_has_the_form_of_the_route_below_the_model(
    tmp_path: Path,
) -> None:
    """Clients of either API read what they know."""
    with several_models(tmp_path, FILE, MAX_CALL_INPUTS="1", OVERSIZE="split") as here:
        tei = here.call("/models/large/embed", inputs=["a", "b"])
        openai = here.call("/models/large/v1/embeddings", input=["a", "b"])

        assert tei.answers()[0].json.keys() == {"error", "error_type"}
        assert openai.answers()[0].json.keys() == {"message", "code", "type"}


def test_limits_of_a_model_are_its_own(tmp_path: Path) -> None:
    """What its table says counts for it alone."""
    file = tables(small="max_batch_inputs = 2", large="")
    with several_models(tmp_path, file) as here:
        for name in ("small", "large"):
            here.call(f"/models/{name}/embed", inputs=["a", "b", "c"])
        here.answer_all()

        assert [body for _, body in here.sent("small")] == [
            b'{"inputs":["a","b"]}',
            b'{"inputs":["c"]}',
        ]
        assert len(here.sent("large")) == 1


def test_the_key_of_a_model_is_shown_to_its_server_alone(tmp_path: Path) -> None:
    """Servers of several owners do not hear each other's."""
    file = tables(small='key = "of-small"', large="")
    with several_models(tmp_path, file) as here:
        for name in ("small", "large"):
            here.call(f"/models/{name}/embed", inputs="a")
        [to_small] = here.upstreams["small"].sent
        [to_large] = here.upstreams["large"].sent
        here.answer_all()

        shown = (b"Authorization", b"Bearer of-small")
        assert shown in to_small.request.headers
        assert shown not in to_large.request.headers


@pytest.mark.parametrize("path", ["/v1/embeddings", "/models/large/v1/embeddings"])
@ways
def test_a_call_to_one_of_several_models_takes_the_fast_path(
    tmp_path: Path, path: str, *, is_fast: bool
) -> None:
    """Also when the same connection asks for one model after the other."""
    with several_models(tmp_path, FILE, is_fast=is_fast) as here:
        client, asked = here.connect(), []
        for name in ("large", "small", "org/small"):
            here.call(path, client, model=name, input="a")
            [request] = here.service.site.requests
            assert isinstance(request, FastRequest) is is_fast
            asked.append(request.model)
            here.answer_all()

        by_body = ["large", "small", "small"]
        assert asked == (by_body if path == "/v1/embeddings" else ["large"] * 3)


def test_known_heads_are_forgotten_when_a_model_changes(tmp_path: Path) -> None:
    """The next call on the same connection goes where its model is now."""
    with several_models(tmp_path, FILE) as here:
        client = here.call("/v1/embeddings", model="large", input="a")
        here.answer_all()
        here.write(tables(small='names = ["large"]'))
        here.reload()

        here.call("/v1/embeddings", client, model="large", input="b")
        here.answer_all()
        here.clock.advance(1)

        assert len(here.sent("large")) == 1
        assert len(here.sent("small")) == 1
