"""What is exchanged with the upstream is never printed."""

from typing import Any

import pytest

from abproxy.batching.part import whole_part
from abproxy.http.messages import Response, UpstreamRequest
from support.batching import call_of

SECRET = b"sesame"
LINES = ((b"Authorization", b"Bearer " + SECRET),)


@pytest.mark.parametrize(
    ("thing", "shown"),
    [
        (
            UpstreamRequest(path=b"/embed", headers=LINES, body=SECRET, items=3),
            "UpstreamRequest(b'POST', b'/embed', items=3)",
        ),
        (
            Response(status=200, reason=b"OK", headers=LINES, body=SECRET),
            "Response(200, 6 bytes)",
        ),
        (call_of(SECRET.decode()), "Call(LaneKey("),
        (whole_part(call_of(SECRET.decode()), 9, 0.0), "1 items"),
    ],
    ids=lambda thing: type(thing).__name__,
)
def test_what_is_printed_of_it_holds_no_text_and_no_key(thing: Any, shown: str) -> None:
    """A log line of one gives nothing away."""
    printed = repr(thing)

    assert shown in printed
    assert SECRET.decode() not in printed
