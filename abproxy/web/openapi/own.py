"""What is ours, described; scripts and looks of the pages are no API."""

from collections.abc import Mapping

from abproxy.web.openapi.batched import REFUSALS
from abproxy.web.openapi.schemas import (
    TEI_ERROR,
    TEXT,
    TRUTH,
    Schema,
    json_of,
    list_of,
    object_of,
)
from abproxy.web.openapi.status import STATUS

__all__ = ["own_paths"]


def _text(*kinds: str) -> Schema:
    content = {kind: {"schema": TEXT} for kind in kinds}
    return {"description": "As it says", "content": content}


def _json(meaning: str, schema: Schema) -> Schema:
    return {"description": meaning, "content": json_of(schema)}


_FIGURES = _text("text/plain", "application/openmetrics-text")
_HTML = _text("text/html")
_NO_KEY = {"description": REFUSALS["401"]}
_FORM = {**_HTML, "description": "The same page, which asks for a key"}
_STATUS = _json("Everything", STATUS)
_API = _json("OpenAPI", {"type": "object"})
_ALIVE = _json("It is", object_of(healthy={"const": True}))
_REPORT = object_of(ready=TRUTH, reasons=list_of(object_of(reason=TEXT, message=TEXT)))
_READY = {"200": _json("They may", _REPORT), "503": _json("Not now", _REPORT)}
_HEALTH = {
    "200": {"description": "It answers, or has no such route and is there"},
    "503": _json("It says that it is not, is away, or abproxy stops", TEI_ERROR),
    "default": {"description": "Whatever else the inference server says of itself"},
}


def own_paths() -> Schema:
    """Describe every page of ours, but not what it is made of."""
    return {
        "/health": _page("Is there a healthy upstream", _HEALTH),
        "/ping": _page("The same, under the name that others have for it", _HEALTH),
        "/metrics": _page("Figures for Prometheus", {"200": _FIGURES}),
        "/-/": _private("The live page", {"200": _HTML, "401": _FORM}),
        "/-/status.json": _with_since(
            _private("What the live page shows", {"200": _STATUS})
        ),
        "/-/healthy": _page("Is this process alive", {"200": _ALIVE}),
        "/-/ready": _page("May calls come, or why not", _READY),
        "/-/docs": _page("This description, to read", {"200": _HTML}),
        "/-/openapi.json": _page("This description", {"200": _API}),
    }


def _page(summary: str, answers: Mapping[str, Schema]) -> Schema:
    return {
        "get": {
            "tags": ["abproxy"],
            "summary": summary,
            "security": [],
            "responses": dict(answers),
        }
    }


def _private(summary: str, answers: Mapping[str, Schema]) -> Schema:
    page = _page(summary, {**answers, "401": answers.get("401", _NO_KEY)})
    page["get"]["security"] = [{}, {"key": []}]
    return page


def _with_since(page: Schema) -> Schema:
    page["get"]["parameters"] = [
        {
            "name": "since",
            "in": "query",
            "description": "Only batches after this serial",
            "schema": {"type": "integer", "minimum": 0, "default": 0},
        }
    ]
    return page
