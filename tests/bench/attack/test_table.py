"""The table of the campaign is what was found."""

import asyncio

import pytest

from bench.attack import pages
from bench.attack.found import Row
from bench.attack.rows import are_own, are_right
from bench.attack.tap import Seen, tap
from bench.breakable import row_of
from bench.wire.pages import between


def test_the_page_is_made_of_the_results() -> None:
    """Its table is that of `docs/attack.json`."""
    text = pages.PAGE.read_text(encoding="utf-8")

    assert between(text, pages.MAKER) == pages.table(pages.read(pages.JSON))


def test_nothing_has_failed_in_what_is_published() -> None:
    """A failure is mended, not published."""
    rows = [row for rows in pages.read(pages.JSON)["parts"].values() for row in rows]

    assert rows
    assert all(row["tried"] and not row["failed"] for row in rows)


def test_failures_are_counted() -> None:
    """Each by itself."""
    row = Row(what="a flood", tried=3)
    row.fail("one")
    row.hold(False, "two")
    row.hold(True, "three")

    [found] = pages.figures({"floods": [row]}, {})["parts"]["floods"]

    assert (found["tried"], found["failed"]) == (3, 2)


def test_rows_of_others_are_told_from_ones_own() -> None:
    """Also where there are too few, which is the server's own affair."""
    own, other = row_of("a"), row_of("b")

    assert are_right(f"[{own}]".encode(), ["a"])
    assert not are_right(f"[{own}]".encode(), ["a", "c"])
    assert are_own(f"[{own}]".encode(), ["a", "c"])
    assert not are_own(f"[{own}, {other}]".encode(), ["a", "c"])


async def _tapped(data: bytes) -> tuple[list[Seen], list[bytes]]:
    async with tap() as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(data)
        writer.write_eof()
        await reader.read()
        writer.close()
        return server.seen, server.wrong


@pytest.mark.parametrize(
    "data",
    [
        b"POST / HTTP/1.1\r\nX: a\rb\r\n\r\n",
        b"POST / HTTP/1.1\r\nX: a\nb\r\n\r\n",
        b"POST / HTTP/1.1\r\n X: a\r\n\r\n",
        b"POST /a b HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
        b"POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\na",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;a\r\na\r\n0\r\n\r\n",
    ],
)
def test_the_tap_takes_nothing_that_may_be_read_in_two_ways(data: bytes) -> None:
    """What the proxy sends must leave no doubt."""
    seen, wrong = asyncio.run(_tapped(data))

    assert not seen
    assert len(wrong) == 1


def test_the_tap_records_what_is_plain() -> None:
    """With and without a length."""
    data = (
        b"POST /a HTTP/1.1\r\nX: y\r\nContent-Length: 1\r\n\r\naGET /b HTTP/1.1\r\n\r\n"
    )

    seen, wrong = asyncio.run(_tapped(data))

    assert [each.body for each in seen] == [b"a", b""]
    assert not wrong
