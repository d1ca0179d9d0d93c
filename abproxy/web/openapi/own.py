"""What is ours, described."""

from collections.abc import Mapping

from abproxy.web.openapi.batched import REFUSALS
from abproxy.web.openapi.schemas import (
    NUMBER,
    TEI_ERROR,
    TEXT,
    Schema,
    json_of,
    list_of,
    object_of,
)

__all__ = ["own_paths"]


def _own(summary: str, answers: Mapping[str, Schema], *, wants_key: bool) -> Schema:
    answers = dict(answers)
    if wants_key:
        answers.setdefault("401", {"description": REFUSALS["401"]})
    security: list[Schema] = [{}, {"key": []}] if wants_key else []
    return {
        "get": {
            "tags": ["abproxy"],
            "summary": summary,
            "security": security,
            "responses": answers,
        }
    }


def _text(kind: str) -> Schema:
    return {"description": "As it says", "content": {kind: {"schema": TEXT}}}


def own_paths() -> Schema:
    """Describe every page of ours."""
    unhealthy = {"description": "Not healthy", "content": json_of(TEI_ERROR)}
    healthy: Schema = {"description": "The inference server answers"}
    health = {"200": healthy, "503": unhealthy}
    reasons = list_of(object_of(reason=TEXT, message=TEXT))
    ready = json_of(object_of(ready={"type": "boolean"}, reasons=reasons))
    page = {"200": _text("text/html"), "401": _text("text/html")}
    status = object_of(
        version=TEXT,
        now=NUMBER,
        started_at=NUMBER,
        upstream={"type": "object"},
        flow={"type": "object"},
        kept_by=TEXT,
        lanes=list_of({"type": "object"}),
        totals={"type": "object"},
        cpu_us_per_call=NUMBER,
        verdict={"type": "object"},
        batches=list_of({"type": "object"}),
        errors=list_of({"type": "object"}),
        settings=list_of(object_of(name=TEXT, value=TEXT, default=TEXT)),
    )
    everything = {"description": "Everything", "content": json_of(status)}
    alive = json_of(object_of(healthy={"const": True}))
    return {
        "/health": _own("Is there a healthy upstream", health, wants_key=False),
        "/ping": _own("The same", health, wants_key=False),
        "/metrics": _own(
            "Figures for Prometheus", {"200": _text("text/plain")}, wants_key=False
        ),
        "/-/": _own("The live page", page, wants_key=True),
        "/-/status.json": _with_since(
            _own("What the live page shows", {"200": everything}, wants_key=True)
        ),
        "/-/healthy": _own(
            "Is this process alive",
            {"200": {"description": "It is", "content": alive}},
            wants_key=False,
        ),
        "/-/ready": _own(
            "May calls come, or why not",
            {
                "200": {"description": "They may", "content": ready},
                "503": {"description": "Not now", "content": ready},
            },
            wants_key=False,
        ),
        "/-/docs": _own(
            "This description, to read", {"200": _text("text/html")}, wants_key=False
        ),
        "/-/openapi.json": _own(
            "This description",
            {"200": {"description": "OpenAPI", "content": json_of({"type": "object"})}},
            wants_key=False,
        ),
    }


def _with_since(path: Schema) -> Schema:
    path["get"]["parameters"] = [
        {
            "name": "since",
            "in": "query",
            "description": "Only batches after this serial",
            "schema": {"type": "integer", "minimum": 0, "default": 0},
        }
    ]
    return path
