"""The document as a page to read, without scripts or addresses elsewhere."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from tools.openapi.schemas import Schema

__all__ = ["page"]

HEAD = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>abproxy: the API</title>
<link rel="stylesheet" href="page.css">
<link rel="icon" href="data:,">
</head>
<body>
<header>
<h1>abproxy: the API</h1>
<nav aria-label="Pages">
<a href="./">Live</a>
<a href="docs" aria-current="page">API</a>
<a href="openapi.json">OpenAPI</a>
</nav>
</header>
<main class="prose">
"""
FOOT = "</main>\n</body>\n</html>\n"

_CODE = re.compile(r"`([^`]+)`")


def page(document: Schema) -> bytes:
    """Write the page for a *document*."""
    components = document["components"]["schemas"]
    about = f"<p>{_prose(document['info']['description'])}</p>\n"
    routes = (
        _route(path, method, told, components)
        for path, methods in document["paths"].items()
        for method, told in methods.items()
    )
    return "".join([HEAD, about, *routes, FOOT]).encode()


def _prose(text: str) -> str:
    """Escape *text*; code stands between backticks in it, as in Markdown."""
    return _CODE.sub(r"<code>\1</code>", escape(text))


def _route(path: str, method: str, told: Schema, components: Schema) -> str:
    name = f"{method.upper()} {path}"
    anchor = re.sub(r"[{}]", "", name.lower().replace(" ", "-").replace("/", "-"))
    body = told.get("requestBody", {}).get("content", {}).get("application/json")
    parts = [
        f'<section aria-labelledby="{anchor}">\n',
        f'<h2 id="{anchor}"><code>{escape(name)}</code></h2>\n',
        f"<p>{_prose(told['summary'])}.</p>\n",
        *_parameters(told.get("parameters", [])),
        *(_body(body, components) if body else ()),
        _answers(told["responses"]),
        "</section>\n",
    ]
    return "".join(parts)


def _parameters(parameters: list[Schema]) -> Iterator[str]:
    rows = [
        (each["name"], _kind(each["schema"]), each["description"])
        for each in parameters
    ]
    if rows:
        yield _table(("Parameter", "Type", "Meaning"), rows)


def _body(body: Schema, components: Schema) -> Iterator[str]:
    schema = components[body["schema"]["$ref"].rpartition("/")[2]]
    rows = [
        (
            name,
            _kind(member),
            "required" if "default" not in member else _default(member),
        )
        for name, member in schema["properties"].items()
    ]
    yield _table(("Member", "Type", "Default"), rows)
    if "example" in body:
        yield f"<pre tabindex=0>{escape(json.dumps(body['example']))}</pre>\n"


def _default(member: Schema) -> str:
    value = member["default"]
    return "the server's own" if value is None else json.dumps(value)


def _answers(responses: Mapping[str, Any]) -> str:
    rows = [(status, told["description"]) for status, told in responses.items()]
    table = _table(("Status", "Meaning"), rows)
    return f"<details>\n<summary>Answers</summary>\n{table}</details>\n"


def _kind(schema: Schema) -> str:
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(map(_kind, schema["anyOf"])))
    if "enum" in schema:
        return " or ".join(map(str, schema["enum"]))
    if schema.get("type") == "array":
        return f"list of ({_kind(schema.get('items', {}))})"
    return str(schema.get("type", "anything"))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    names = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    lines = "".join(
        "<tr>" + "".join(f"<td>{_prose(cell)}</td>" for cell in row) + "</tr>\n"
        for row in rows
    )
    return (
        '<div class="scroll" tabindex=0>\n<table>\n'
        f"<thead><tr>{names}</tr></thead>\n<tbody>\n{lines}</tbody>\n</table>\n</div>\n"
    )
