"""The OpenAPI document that is served, and whether an answer is as it says."""

import json
from typing import Any

import requests
import schemathesis
from schemathesis import checks

from support.client import Answer
from tools.openapi.__main__ import PAGES

__all__ = ["CONFORMS", "DESCRIPTION", "assert_described", "operations"]

FILE = PAGES / "openapi.json"
DESCRIPTION = json.loads(FILE.read_bytes())

SCHEMA = schemathesis.openapi.from_path(
    FILE,
    config=schemathesis.Config.from_dict(
        {"generation": {"deterministic": True, "database": "none"}}
    ),
)
"""The same for schemathesis, which draws equal requests in every run."""

CONFORMS = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
"""Status, content type, headers and body are among those described."""


def operations() -> list[tuple[str, str, Any]]:
    """List everything that is described: method, path and words."""
    return [
        (method.upper(), path, told)
        for path, methods in DESCRIPTION["paths"].items()
        for method, told in methods.items()
    ]


def assert_described(method: str, path: str, answer: Answer, **parameters: str) -> None:
    """Hold *answer* against the description of a *path*, which may have parameters."""
    headers: dict[str, list[str]] = {}
    for name, value in answer.headers:
        headers.setdefault(name.lower(), []).append(value)
    response = schemathesis.Response(
        status_code=answer.status,
        headers=headers,
        content=answer.body,
        request=requests.Request(method, f"http://door{path}").prepare(),
        elapsed=0.0,
        verify=False,
    )
    SCHEMA[path][method].Case(path_parameters=parameters).validate_response(
        response, checks=CONFORMS
    )
