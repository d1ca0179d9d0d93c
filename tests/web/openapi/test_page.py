"""The description as a page to read."""

import re
from collections.abc import Sequence
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urljoin

import pytest
from attrs import define, field

from support.proxy import in_memory_proxy
from support.upstream import OpenUpstream
from tools.openapi.__main__ import PAGES
from tools.openapi.page import page
from web.openapi.described import operations

VOID = {"meta", "link"}
PAGE = (PAGES / "docs.html").read_bytes()
MARKUP = '<script>alert("&")</script>'


@define(eq=False, slots=False)
class Outline(HTMLParser):
    """What is in a page; fails if its elements do not nest."""

    elements: list[tuple[str, dict[str, str | None]]] = field(factory=list)
    texts: list[tuple[tuple[str, ...], str]] = field(factory=list)
    """Each text with the elements that it is in."""

    declaration: str = ""
    _open: list[str] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        super().__init__()

    @classmethod
    def of(cls, body: bytes) -> "Outline":
        """Read a whole page."""
        outline = cls()
        outline.feed(body.decode())
        outline.close()
        assert outline._open == []
        return outline

    def handle_decl(self, decl: str) -> None:
        self.declaration = decl

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, Any]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((tuple(self._open), data))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """Return the attributes of all elements of a kind."""
        return [attrs for name, attrs in self.elements if name == tag]

    def values(self, attribute: str) -> list[str]:
        """Return the values of an attribute, wherever it stands."""
        return [str(a[attribute]) for _, a in self.elements if attribute in a]

    def text(self, *tags: str) -> list[str]:
        """Return the texts in all elements of a kind, or of one in another."""
        return [text for path, text in self.texts if path[-len(tags) :] == tags]


@pytest.fixture
def outline() -> Outline:
    """Read the page that is served."""
    return Outline.of(PAGE)


def of_one(told: dict[str, Any], schema: dict[str, Any]) -> bytes:
    """Write the page of a description of one route, whose body is of a schema."""
    body = {"schema": {"$ref": "#/components/schemas/Body"}, "example": MARKUP}
    route = {
        "summary": "Something",
        "requestBody": {"content": {"application/json": body}},
        "responses": {"200": {"description": "Fine"}},
        **told,
    }
    return page(
        {
            "info": {"description": "About"},
            "paths": {"/some/path": {"post": route}},
            "components": {"schemas": {"Body": {"properties": schema}}},
        }
    )


def test_it_is_a_document(outline: Outline) -> None:
    """A browser need not guess what it is, and a reader neither."""
    assert outline.declaration == "doctype html"
    assert outline.all("html") == [{"lang": "en"}]
    assert outline.text("title") == outline.text("h1") == ["abproxy: the API"]
    assert len(outline.all("main")) == 1
    assert {"charset": "utf-8"} in outline.all("meta")


def test_it_lists_everything_that_is_described(outline: Outline) -> None:
    """Each with what it is for."""
    assert outline.text("h2", "code") == [
        f"{method} {path}" for method, path, _ in operations()
    ]
    told = " ".join(outline.text("p"))
    assert [
        each["summary"] for *_, each in operations() if each["summary"] not in told
    ] == []


def test_code_in_words_looks_like_code(outline: Outline) -> None:
    """Backticks, as the description has them for Markdown, are not shown."""
    assert "Authorization: Bearer ..." in outline.text("td", "code")
    assert "/invocations" in outline.text("p", "code")
    assert [text for _, text in outline.texts if "`" in text] == []


def test_it_lists_the_members_of_a_body(outline: Outline) -> None:
    """With type and default, and which of them are wanted."""
    cells = outline.text("td")

    at = cells.index("truncation_direction")
    assert cells[at : at + 3] == [
        "truncation_direction",
        "Left or Right or left or right",
        '"Right"',
    ]
    at = cells.index("inputs")
    assert cells[at + 2] == "required"
    at = cells.index("dimensions")
    assert cells[at : at + 3] == ["dimensions", "integer or null", "the server's own"]


def test_it_lists_parameters_and_answers(outline: Outline) -> None:
    """As tables with heads."""
    cells = outline.text("td")

    at = cells.index("since")
    assert cells[at : at + 3] == ["since", "integer", "Only batches after this serial"]
    assert "The body is too large" in cells
    assert {tuple(head.items()) for head in outline.all("th")} == {(("scope", "col"),)}


def test_its_sections_are_named(outline: Outline) -> None:
    """By headings that can be linked to."""
    names = outline.values("id")

    assert len(names) == len(set(names)) == len(operations())
    assert [each["aria-labelledby"] for each in outline.all("section")] == names
    assert all(re.fullmatch(r"[\w.-]+", name) for name in names)


def test_it_needs_nothing_from_elsewhere(outline: Outline) -> None:
    """It is read where there is no network, and no server is told that it is."""
    assert b"//" not in PAGE
    assert outline.all("script") == outline.all("img") == outline.all("style") == []
    assert outline.values("style") == outline.values("src") == []


def test_its_links_lead_somewhere(outline: Outline) -> None:
    """To pages of ours, of which one is this."""
    proxy = in_memory_proxy(OpenUpstream())

    written = [link for link in outline.values("href") if link != "data:,"]
    links = [urljoin("/-/docs", link) for link in written]

    assert not any(link.startswith("/") for link in written)
    assert set(links) == {"/-/page.css", "/-/", "/-/docs", "/-/openapi.json"}
    assert [proxy.ask("GET", link).status for link in links] == [200] * 4
    [here] = [each for each in outline.all("a") if "aria-current" in each]
    assert here["href"] == "docs"


def test_it_is_served_as_it_is() -> None:
    """The answer of the proxy is this page."""
    proxy = in_memory_proxy(OpenUpstream())

    assert proxy.ask("GET", "/-/docs").body == PAGE


@pytest.mark.parametrize(
    ("told", "schema"),
    [
        ({"summary": MARKUP}, {}),
        ({"responses": {"200": {"description": MARKUP}}}, {}),
        ({"responses": {MARKUP: {"description": "Fine"}}}, {}),
        (
            {
                "parameters": [
                    {"name": MARKUP, "schema": {"type": MARKUP}, "description": MARKUP}
                ]
            },
            {},
        ),
        ({}, {MARKUP: {"type": "string"}}),
        ({}, {"a": {"enum": [MARKUP]}}),
        ({}, {"a": {"type": "string", "default": MARKUP}}),
    ],
)
def test_words_are_never_markup(told: Any, schema: Any) -> None:
    """Whatever stands in a description is shown as it stands there."""
    outline = Outline.of(of_one(told, schema))

    shown = "".join(text for _, text in outline.texts)
    assert outline.all("script") == []
    assert shown.count("</script>") >= 2  # the example, and what was put in


@pytest.mark.parametrize(
    ("schema", "kind"),
    [
        ({"type": "string"}, "string"),
        ({"type": "array", "items": {"type": "integer"}}, "list of (integer)"),
        ({"type": "array"}, "list of (anything)"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "string or null"),
        ({"anyOf": [{"type": "string"}, {"type": "string"}]}, "string"),
        ({"enum": [1, "b"]}, "1 or b"),
        ({}, "anything"),
    ],
)
def test_types_are_told_in_words(schema: Any, kind: str) -> None:
    """Also those that no route has yet."""
    outline = Outline.of(of_one({}, {"member": schema}))

    assert outline.text("td")[:3] == ["member", kind, "required"]
