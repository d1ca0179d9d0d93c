"""What clients say about answers that were given before."""

import pytest

from abproxy.http.caching import read_cache_control


@pytest.mark.parametrize(
    ("value", "is_known", "is_kept"),
    [
        (b"no-cache", False, True),
        (b"No-Cache", False, True),
        (b"max-age=0", False, True),
        (b"no-store", False, False),
        (b"no-transform, no-store", False, False),
        (b"max-age=10", True, True),
        (b"no-cached", True, True),
        (b"", True, True),
    ],
)
def test_a_client_may_want_a_new_answer(
    value: bytes,
    is_known: bool,  # noqa: FBT001
    is_kept: bool,  # noqa: FBT001
) -> None:
    """And that it is not remembered."""
    headers = ((b"Host", b"no-store"), (b"cache-control", value))
    assert read_cache_control(headers) == (is_known, is_kept)


def test_an_old_client_says_it_in_another_way() -> None:
    """HTTP/1.0 has no Cache-Control."""
    assert read_cache_control(((b"Pragma", b"no-cache"),)) == (False, True)


def test_most_clients_say_nothing() -> None:
    """Then what is known will do."""
    assert read_cache_control(()) == (True, True)
