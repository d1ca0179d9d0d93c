"""The box in which one asks what a client would ask."""

import pytest

from support.browser import LivePage


@pytest.mark.parametrize("route", ["/embed", "/v1/embeddings"])
def test_the_box_shows_rows_and_time(page: LivePage, route: str) -> None:
    """One text on a line, one row for each."""
    page.write("texts", "one\n\ntwo")
    page.choose("route", route)

    page.press("#try button")

    about = page.until_it_says("answer-about", "Status 200 after ")
    assert "2 rows of 4 numbers. Its batch had no other call." in about
    assert "0." in page.text("answer")


def test_a_model_is_named_where_the_route_wants_one(page: LivePage) -> None:
    """What the inference server calls its own is there already."""
    page.choose("route", "/v1/embeddings")

    assert page.script("return document.getElementById('model').value") == "breakable"
    assert page.script("return document.getElementById('model').offsetHeight") > 0


@pytest.mark.parametrize(
    ("text", "route", "status", "body"),
    [
        ("this is BAD", "/embed", 422, "must not say BAD"),
        ("fine", "/tokenize", 404, ""),
    ],
)
def test_the_box_shows_what_went_wrong(
    page: LivePage, text: str, route: str, status: int, body: str
) -> None:
    """Status and body are those that a client would get."""
    page.write("texts", text)
    page.choose("route", route)

    page.press("#try button")

    page.until_it_says("answer-about", f"Status {status} after ")
    assert body in page.text("answer")


def test_markup_in_an_answer_is_text(page: LivePage) -> None:
    """Whatever a server says, the page does not become something else."""
    page.write("texts", "BAD <img src=x onerror=alert(1)>")

    page.press("#try button")

    page.until_it_says("answer-about", "Status 422")
    assert page.script("return document.images.length") == 0


def test_a_lone_box_wants_a_text(page: LivePage) -> None:
    """Nothing is sent for nothing."""
    page.write("texts", "")

    page.press("#try button")

    assert page.text("answer-about") == ""
