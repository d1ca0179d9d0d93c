"""
The OpenAPI 3.1 document: the batched routes, and abproxy's own pages.

Bodies are described by the types that parse them.  What is described as refused is
refused by the upstream: a body that abproxy cannot parse is relayed.  Scripts and
styles of the pages are no API, and left out.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from abproxy import __version__
from abproxy.dialects.call import Dialect
from abproxy.dialects.openai import OPENAI, OPENAI_BARE
from abproxy.dialects.rerank import RERANK
from abproxy.dialects.routes import ROUTES
from abproxy.dialects.tei import (
    DECODE,
    EMBED,
    EMBED_ALL,
    EMBED_SPARSE,
    PREDICT,
    TOKENIZE,
)
from tools.openapi.schemas import (
    EMBEDDINGS,
    NUMBER,
    NUMBERS,
    ONE_UPSTREAM,
    OPENAI_ERROR,
    RANK,
    READINESS,
    SCORES,
    STATUS,
    TEI_ERROR,
    TEXT,
    TOKENS,
    UPSTREAMS,
    WHOLE,
    Schema,
    list_of,
    object_of,
)

__all__ = ["describe"]

REF = "#/components/schemas/{name}"

_PUBLIC: list[Schema] = []
_KEY_IF_SET: list[Schema] = [{}, {"key": []}]


def _page(summary: str, responses: Schema, *parameters: Schema) -> Schema:
    get = {
        "tags": ["abproxy"],
        "summary": summary,
        "security": _KEY_IF_SET if "401" in responses else _PUBLIC,
        "responses": responses,
    }
    return {"get": {**get, "parameters": list(parameters)} if parameters else get}


def _answer(meaning: str, content: Schema) -> Schema:
    return {"description": meaning, "content": content}


def _json(schema: Schema, **more: Any) -> Schema:
    return {"application/json": {"schema": schema, **more}}


def _text(*kinds: str) -> Schema:
    return {kind: {"schema": TEXT} for kind in kinds}


_ONE_TEXT = {"inputs": "What is Vector Search?"}
_OPENAI_BODY = {"input": ["Hello, world!"], "model": "any", "encoding_format": "float"}

ABOUT: Mapping[Dialect, tuple[str, Schema, Any]] = {
    EMBED: (
        "Embeddings, one for each input",
        list_of(NUMBERS),
        {"inputs": ["What is Vector Search?", "Hello, world!"]},
    ),
    EMBED_ALL: (
        "Embeddings of every token, without pooling",
        list_of(list_of(NUMBERS)),
        _ONE_TEXT,
    ),
    EMBED_SPARSE: (
        "Sparse embeddings, for models that make them",
        list_of(list_of(object_of(index=WHOLE, value=NUMBER))),
        _ONE_TEXT,
    ),
    PREDICT: (
        "Labels and scores; one flat list for one text or pair",
        {"anyOf": [SCORES, list_of(SCORES)]},
        {"inputs": [["a good film"], ["a bad film"]]},
    ),
    TOKENIZE: ("Tokens, one list for each text", list_of(TOKENS), _ONE_TEXT),
    DECODE: ("Texts of token ids", list_of(TEXT), {"ids": [[101, 7592, 102]]}),
    RERANK: (
        "Texts by how well they answer a query, the best first; for re-rankers",
        list_of(RANK),
        {"query": "What is Vector Search?", "texts": ["An index", "Hello, world!"]},
    ),
    OPENAI: ("Embeddings in the format of the OpenAI API", EMBEDDINGS, _OPENAI_BODY),
    OPENAI_BARE: (
        "The same without a version in the path",
        EMBEDDINGS,
        _OPENAI_BODY,
    ),
}
"""The summary of a route, the schema of its answer, and an example of a body."""

REFUSALS = {
    "400": "The body is not JSON, or has no input",
    "401": "A key is required: `Authorization: Bearer ...`",
    "404": "The inference server has no such route",
    "408": "The request took too long to arrive",
    "413": "The body is too large",
    "415": "The content type is not application/json",
    "422": "The inference server cannot use an input or an option",
    "424": "The inference server's model failed, or does not support this route",
    "429": "Too many calls; retry after `Retry-After` seconds",
    "431": "The request line and headers are too large",
    "500": "A bug in abproxy; its log has the answer's `X-Request-Id`",
    "502": "The inference server gave no usable answer",
    "503": "The inference server was overloaded for longer than calls wait",
    "504": "No answer in time, or the call waited too long to be sent",
}
"""What other answers of a batched route mean, from abproxy or the upstream."""

_REQUEST_ID = {
    "description": "The id of the request in abproxy's log, if abproxy itself answers",
    "schema": TEXT,
}
_RETRY_AFTER = {"description": "Seconds to wait before a retry", "schema": WHOLE}

_HTML = _answer("The page", _text("text/html"))
_FIGURES = _answer("The metrics", _text("text/plain", "application/openmetrics-text"))
_ALIVE = _answer("It runs", _json(object_of(healthy={"const": True})))
_READY = {
    "200": _answer("Calls are accepted", _json(READINESS)),
    "503": _answer("Calls would fail now, with the reasons", _json(READINESS)),
}
_HEALTH = {
    "200": {"description": "It is healthy, or answers and has no health route"},
    "503": _answer(
        "It is not healthy or not reachable, or abproxy is stopping",
        _json(TEI_ERROR),
    ),
    "default": {"description": "Any other answer of the inference server"},
}
_LIVE = {
    "200": _HTML,
    "401": _answer("The same page, which asks for a key", _text("text/html")),
}
_STATUS = {
    "200": _answer("All figures", _json(STATUS)),
    "401": {"description": REFUSALS["401"]},
}
_API = _answer("OpenAPI", _json({"type": "object"}))
_SINCE = {
    "name": "since",
    "in": "query",
    "description": "Only batches after this serial",
    "schema": {"type": "integer", "minimum": 0, "default": 0},
}

_MODEL = {
    "name": "model",
    "in": "query",
    "description": "Where there are several models, the one whose figures are wanted",
    "schema": {"type": "string", "default": ""},
}

_ADDRESS = {
    "name": "address",
    "in": "path",
    "required": True,
    "description": "Host, port and path of a server, with slashes as they are",
    "schema": TEXT,
}
_NO_UPSTREAM = _answer("There is no such server, or no ADMIN_KEY", _json(TEI_ERROR))
_NO_ADMIN = {"description": "A key of operators is required (`ADMIN_KEY`)"}


def _for_operators(
    method: str, summary: str, answer: Schema, *parameters: Schema, **more: Schema
) -> Schema:
    about: Schema = {
        "tags": ["abproxy"],
        "summary": summary,
        "security": [{"key": []}],
        "responses": {
            "200": _answer("How it is now", _json(answer)),
            "401": _NO_ADMIN,
            "404": _NO_UPSTREAM,
            **more,
        },
    }
    return {method: {**about, "parameters": list(parameters)} if parameters else about}


_LAST = _answer("No other server would take calls", _json(TEI_ERROR))
_SILENT = _answer("A worker did not answer; try again", _json(TEI_ERROR))

OWN_PAGES = {
    "/health": _page("Whether the inference server is healthy", _HEALTH),
    "/ping": _page("The same as /health, for clients that use this path", _HEALTH),
    "/metrics": _page("Metrics for Prometheus", {"200": _FIGURES}),
    "/-/": _page("The live page", _LIVE),
    "/-/status.json": _page("The figures of the live page", _STATUS, _SINCE, _MODEL),
    "/-/healthy": _page("Whether this process runs", {"200": _ALIVE}),
    "/-/ready": _page("Whether calls are accepted, or why not", _READY),
    "/-/docs": _page("This description as a page", {"200": _HTML}),
    "/-/openapi.json": _page("This description", {"200": _API}),
    "/-/upstreams": _for_operators(
        "get", "The inference servers, and what each has in flight", UPSTREAMS
    ),
    "/-/upstreams/{address}": _for_operators(
        "get", "One inference server", ONE_UPSTREAM, _ADDRESS
    ),
    "/-/upstreams/{address}/drain": _for_operators(
        "post",
        "Send no more calls to a server; what it has is answered",
        ONE_UPSTREAM,
        _ADDRESS,
        **{"409": _LAST, "502": _SILENT},
    ),
    "/-/upstreams/{address}/resume": _for_operators(
        "post",
        "Send calls to it again",
        ONE_UPSTREAM,
        _ADDRESS,
        **{"502": _SILENT},
    ),
}


def describe(routes: Mapping[bytes, Dialect] = ROUTES) -> Schema:
    """Return the whole document."""
    bodies, components = msgspec.json.schema_components(
        [route.body for route in routes.values()], ref_template=REF
    )
    batched = {
        path.decode(): _batched(route, body)
        for (path, route), body in zip(routes.items(), bodies, strict=True)
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "abproxy",
            "version": __version__,
            "description": (
                "An auto-batching proxy for embedding servers. This describes its own "
                "pages and the routes whose calls share batches; every other request "
                "is passed on to the inference server alone and unchanged. `/` and "
                "`/invocations` do the task of the inference server's model."
            ),
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "paths": {**batched, **OWN_PAGES},
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _batched(route: Dialect, body: Schema) -> Schema:
    summary, answer, example = ABOUT.get(route, (route.path.decode(), {}, None))
    error = OPENAI_ERROR if route.has_usage else TEI_ERROR
    refusals = {
        status: _refusal(status, meaning, error) for status, meaning in REFUSALS.items()
    }
    return {
        "post": {
            "tags": ["batched"],
            "summary": summary,
            "security": _KEY_IF_SET,
            "requestBody": {
                "required": True,
                "content": _json(body, **({"example": example} if example else {})),
            },
            "responses": {
                "200": _answer("One row for each input", _json(answer)),
                **refusals,
            },
        }
    }


def _refusal(status: str, meaning: str, error: Schema) -> Schema:
    headers = {"X-Request-Id": _REQUEST_ID}
    if status == "401":
        return {"description": meaning, "headers": headers}
    if status == "429":
        headers["Retry-After"] = _RETRY_AFTER
    # The inference server's web framework answers some of them in plain text.
    content = {**_json(error), **_text("text/plain")}
    return {"description": meaning, "headers": headers, "content": content}
