"""The plot has a bar for each figure, and the figure beside it."""

from xml.etree import ElementTree as ET

import pytest

from bench.wire.bars import WIDTH, svg
from support.measured import found

SVG = "{http://www.w3.org/2000/svg}"


def _drawn() -> ET.Element:
    return ET.fromstring(svg(found()))  # noqa: S314  it is our own


def test_each_figure_has_a_bar() -> None:
    """Two numbers of clients; three contestants for rates, two for CPU time."""
    bars = _drawn().findall(f"{SVG}rect")

    assert len(bars) == 3 + 2 * 3 + 2 * 2  # the first three are the legend


def test_each_figure_is_written() -> None:
    """So nobody has to measure a bar."""
    words = [each.text for each in _drawn().findall(f"{SVG}text")]

    assert words.count("100,000") == 2
    assert words.count("250") == 2


def test_the_longest_bar_is_the_largest_figure() -> None:
    """And the others are in proportion."""
    bars = _drawn().findall(f"{SVG}rect")[3:6]

    direct, aiohttp, abproxy = (float(each.attrib["width"]) for each in bars)
    assert abproxy / aiohttp == pytest.approx(3, rel=0.05)
    assert direct == max(direct, aiohttp, abproxy)


def test_nothing_hangs_over_the_edge() -> None:
    """With room for the figure beside the longest bar."""
    bars = _drawn().findall(f"{SVG}rect")

    ends = [float(each.attrib["x"]) + float(each.attrib["width"]) for each in bars]
    assert max(ends) < WIDTH - 50


def test_colours_are_no_black_and_no_white() -> None:
    """It is read on both."""
    colours = {each.attrib["fill"] for each in _drawn() if "fill" in each.attrib}

    assert len(colours) == 4
    assert not colours & {"#000000", "#ffffff", "black", "white"}
