"""What upstreams state of their limits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from abproxy.batching.refusal import is_size_possible
from abproxy.batching.stated import (
    Stated,
    pause_stated_s,
    read_stated,
    retry_after_s,
)
from abproxy.http.messages import Response


def answer(*lines: tuple[str, str]) -> Response:
    """Return an answer with these header lines."""
    headers = tuple((name.encode(), value.encode()) for name, value in lines)
    return Response(status=200, reason=b"", headers=headers, body=b"")


def test_openais_lines_are_read() -> None:
    """As in its guide to rate limits."""
    stated = read_stated(
        answer(
            ("Content-Type", "application/json"),
            ("x-ratelimit-limit-requests", "60"),
            ("x-ratelimit-limit-tokens", "150000"),
            ("x-ratelimit-remaining-requests", "59"),
            ("x-ratelimit-remaining-tokens", "149984"),
            ("x-ratelimit-reset-requests", "1s"),
            ("x-ratelimit-reset-tokens", "6m0s"),
        )
    )

    assert stated == [
        Stated("requests", 60, 59, 1, refills=True),
        Stated("tokens", 150_000, 149_984, 360, refills=True),
    ]


@pytest.mark.parametrize(
    "lines",
    [
        [
            ("RateLimit-Limit", "100"),
            ("RateLimit-Remaining", "50"),
            ("RateLimit-Reset", "30"),
        ],
        [
            ("RateLimit-Limit", "100, 100;w=60"),
            ("RateLimit-Remaining", "50"),
            ("RateLimit-Reset", "30"),
        ],
        [("RateLimit", "limit=100, remaining=50, reset=30")],
        [
            ("RateLimit-Policy", '"default";q=100;w=60'),
            ("RateLimit", '"default";r=50;t=30'),
        ],
        [
            ("ratelimit-policy", '"a";q=100;w=60, "b";q=9000;w=86400'),
            ("ratelimit", '"a";r=50;t=30, "b";r=8000;t=80000'),
        ],
        [
            ("X-RateLimit-Limit", "100"),
            ("X-RateLimit-Remaining", "50"),
            ("X-RateLimit-Reset", "30"),
        ],
    ],
)
def test_the_drafts_of_the_ietf_are_read(lines: list[tuple[str, str]]) -> None:
    """In all the forms that it has had."""
    assert read_stated(answer(*lines)) == [
        Stated("requests", 100, 50, 30, refills=False)
    ]


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("1s", 1),
        ("6m0s", 360),
        ("120ms", 0.12),
        ("7.66s", 7.66),
        ("1m30.951s", 90.951),
        ("2h1m3s", 7263),
        ("0s", 0),
        ("17", 17),
        ("", 60),
        ("soon", 60),
        ("1788912000", 60),
        ("1.2.3s", 60),
    ],
)
def test_times_are_read_as_they_are_written(written: str, seconds: float) -> None:
    """As Go writes them; what is none of these is taken for a minute."""
    [stated] = read_stated(
        answer(
            ("x-ratelimit-remaining-tokens", "5"),
            ("x-ratelimit-reset-tokens", written),
        )
    )

    assert stated.reset_s == pytest.approx(seconds)


def test_lines_without_what_is_left_state_nothing() -> None:
    """A limit alone says nothing of now."""
    assert not read_stated(answer(("x-ratelimit-limit-requests", "60")))
    assert not read_stated(answer(("x-ratelimit-remaining-requests", "many")))
    assert not read_stated(answer(("x-request-id", "1"), ("retry-after", "3")))


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [
                    "x-ratelimit-limit-requests",
                    "x-ratelimit-remaining-requests",
                    "x-ratelimit-reset-requests",
                    "RateLimit",
                    "RateLimit-Policy",
                    "retry-after",
                    "retry-after-ms",
                    "date",
                ]
            ),
            st.text(st.characters(max_codepoint=255), max_size=30),
        )
    )
)
def test_no_line_is_too_strange(lines: list[tuple[str, str]]) -> None:
    """An upstream may write what it likes."""
    headers = tuple((name.encode(), value.encode("latin-1")) for name, value in lines)
    response = Response(status=429, reason=b"", headers=headers, body=b"")

    assert all(each.left >= 0 for each in read_stated(response))
    assert retry_after_s(response) >= 0


@pytest.mark.parametrize(
    ("lines", "seconds"),
    [
        ([("Retry-After", "9"), ("ratelimit-remaining", "0")], 9),
        ([("ratelimit-remaining", "0"), ("ratelimit-reset", "30")], 30),
        ([("ratelimit-remaining", "0"), ("ratelimit-reset", "3000")], 60),
        ([("ratelimit-remaining", "1"), ("ratelimit-reset", "30")], 0),
        ([], 0),
    ],
)
def test_a_refusal_without_a_pause_lasts_until_the_reset(
    lines: list[tuple[str, str]], seconds: float
) -> None:
    """Of what it says is used up; of anything else it says nothing."""
    assert pause_stated_s(answer(*lines)) == seconds


@pytest.mark.parametrize(
    ("lines", "is_possible"),
    [
        ([], True),
        ([("Retry-After", "9")], True),
        ([("Retry-After", "9"), ("ratelimit-remaining", "3")], False),
        ([("ratelimit-remaining", "0"), ("ratelimit-reset", "30")], False),
        ([("ratelimit-remaining", "3"), ("ratelimit-reset", "30")], True),
    ],
)
def test_a_refusal_for_the_rate_is_none_for_the_size(
    lines: list[tuple[str, str]],
    is_possible: bool,  # noqa: FBT001
) -> None:
    """Half as much would have been refused as well."""
    refused = replace(answer(*lines), status=429)

    assert is_size_possible(refused) is is_possible


@pytest.mark.parametrize(
    ("lines", "seconds"),
    [
        ([("Retry-After", "20")], 20),
        ([("Retry-After", "1"), ("retry-after-ms", "120")], 0.12),
        (
            [
                ("Date", "Sun, 06 Nov 1994 08:49:37 GMT"),
                ("Retry-After", "Sun, 06 Nov 1994 08:49:57 GMT"),
            ],
            20,
        ),
        ([("Retry-After", "later")], 0),
        ([], 0),
    ],
)
def test_a_pause_that_is_asked_for_is_read(
    lines: list[tuple[str, str]], seconds: float
) -> None:
    """The more exact line counts where there are two."""
    assert retry_after_s(answer(*lines)) == pytest.approx(seconds)
