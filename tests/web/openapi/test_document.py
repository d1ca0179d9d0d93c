"""The description holds everything that is ours or batched, and nothing else."""

from typing import Any

import msgspec
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from abproxy import __version__
from abproxy.dialects.parse import Inputs
from abproxy.dialects.routes import ROUTES
from abproxy.dialects.tei import JSONRoute
from support.proxy import in_memory_proxy
from support.upstream import OpenUpstream
from tools.openapi.document import describe
from web.openapi.described import DESCRIPTION, operations

BATCHED = [path.decode() for path in ROUTES]


def test_it_is_valid() -> None:
    """It follows the OpenAPI specification."""
    OpenAPIV31SpecValidator(DESCRIPTION).validate()


def test_it_is_served_as_it_is() -> None:
    """The answer of the proxy is this document, of this version."""
    proxy = in_memory_proxy(OpenUpstream())

    answer = proxy.ask("GET", "/-/openapi.json")

    assert answer.json == DESCRIPTION
    assert answer.json["info"]["version"] == __version__


def test_it_holds_what_is_batched_and_what_is_ours() -> None:
    """The upstream describes the rest; what our pages are made of is no API."""
    proxy = in_memory_proxy(OpenUpstream())
    ours = [path.decode() for path in proxy.site.operations.pages]
    pages = [path for path in ours if not path.endswith((".js", ".css"))]

    described = [path for path in DESCRIPTION["paths"] if "{" not in path]
    assert sorted(described) == sorted([*BATCHED, *pages])


def test_batched_routes_are_posted_to_and_pages_are_got() -> None:
    """One method each."""
    methods = {path: method for method, path, _ in operations()}

    changing = [path for path in methods if path.endswith(("/drain", "/resume"))]
    assert {methods.pop(path) for path in [*BATCHED, *changing]} == {"POST"}
    assert set(methods.values()) == {"GET"}


@pytest.mark.parametrize(("path", "route"), ROUTES.items())
def test_each_batched_route_is_told_in_words(path: bytes, route: Any) -> None:
    """With the shape of its answers, and a body to begin with that is understood."""
    told = DESCRIPTION["paths"][path.decode()]["post"]

    body = told["requestBody"]["content"]["application/json"]
    assert told["summary"] != path.decode()
    assert told["responses"]["200"]["content"]["application/json"]["schema"]
    assert route.read(msgspec.json.encode(body["example"])) is not None


@pytest.mark.parametrize(("path", "route"), ROUTES.items())
def test_bodies_are_described_by_the_types_that_read_them(
    path: bytes, route: Any
) -> None:
    """So that nothing is said of a member that is not so."""
    told = DESCRIPTION["paths"][path.decode()]["post"]

    schema = told["requestBody"]["content"]["application/json"]["schema"]
    name = schema["$ref"].removeprefix("#/components/schemas/")
    members = DESCRIPTION["components"]["schemas"][name]
    fields = {each.name: each.required for each in msgspec.structs.fields(route.body)}
    assert set(members["properties"]) == set(fields)
    assert members["required"] == [name for name, wanted in fields.items() if wanted]


@pytest.mark.parametrize(("method", "path", "told"), operations())
def test_what_wants_a_key_says_so(method: str, path: str, told: Any) -> None:
    """A key where there are keys, nothing where there are none, or never one."""
    proxy = in_memory_proxy(OpenUpstream(), api_keys=("one",), admin_keys=("two",))

    answer = proxy.ask(method, path)

    wants_key = answer.status == 401
    unless_there_are_none = [] if "upstreams" in path else [{}]
    wanted = [*unless_there_are_none, {"key": []}] if wants_key else []
    assert told["security"] == wanted
    assert ("401" in told["responses"]) is wants_key


def test_a_route_without_words_is_described_all_the_same() -> None:
    """Its body is known, and that it has one."""

    class Body(msgspec.Struct):
        inputs: Inputs

    route = JSONRoute(path=b"/embed_new", items="inputs", body=Body)

    description = describe({route.path: route})

    OpenAPIV31SpecValidator(description).validate()
    told = description["paths"]["/embed_new"]["post"]
    assert told["summary"] == "/embed_new"
    assert "example" not in told["requestBody"]["content"]["application/json"]
