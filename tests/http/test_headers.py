"""Which header lines are passed on."""

import pytest

from abproxy.http.headers import Credentials, end_to_end, lead_back, read_cache_control

KEY = (b"Authorization", b"Bearer client")


@pytest.mark.parametrize(
    "name",
    [
        b"Connection",
        b"Keep-Alive",
        b"Proxy-Connection",
        b"TE",
        b"Trailer",
        b"Transfer-Encoding",
        b"Upgrade",
        b"Content-Length",
        b"Expect",
        b"Host",
    ],
)
def test_what_is_about_one_connection_stays_behind(name: bytes) -> None:
    """The sender of a message writes it anew, however it is spelled."""
    assert end_to_end([(name, [b"x"]), (name.upper(), [b"x"])]) == ()


def test_what_a_connection_line_names_stays_behind() -> None:
    """In any case, with any space, in any of several lines."""
    raw = [
        (b"X-One", [b"1"]),
        (b"x-two", [b"2"]),
        (b"X-Three", [b"3"]),
        (b"Connection", [b"close ,\tx-one,,", b"X-TWO"]),
    ]

    assert end_to_end(raw) == ((b"X-Three", b"3"),)


def test_each_value_of_a_name_is_a_line() -> None:
    """`Set-Cookie` cannot be joined with commas."""
    raw = [(b"Set-Cookie", [b"a=1", b"b=2"]), (b"X-Empty", [b""])]

    assert end_to_end(raw) == (
        (b"Set-Cookie", b"a=1"),
        (b"Set-Cookie", b"b=2"),
        (b"X-Empty", b""),
    )


def test_without_a_key_of_ours_the_clients_own_is_shown() -> None:
    """The upstream decides about it."""
    assert Credentials().on((KEY,)) == (KEY,)


def test_our_key_stands_in_for_every_credential_of_the_client() -> None:
    """However many lines it sends and however it spells them."""
    lines = (KEY, (b"authorization", b"Basic x"), (b"X-A", b"1"))

    assert Credentials(key="ours").on(lines) == (
        (b"X-A", b"1"),
        (b"Authorization", b"Bearer ours"),
    )


def test_a_key_that_is_checked_here_is_not_sent_on() -> None:
    """It is none of the upstream's business."""
    assert Credentials(are_for_us=True).on((KEY, (b"X-A", b"1"))) == ((b"X-A", b"1"),)


def test_a_key_is_not_printed() -> None:
    """It might end up in a log."""
    assert "ours" not in repr(Credentials(key="ours"))
    assert "ours" not in str(Credentials(key="ours"))


FIXED = ((b"Host", b"model.example"), (b"X-Gate", b"secret"))


def test_fixed_lines_stand_in_for_those_of_clients() -> None:
    """However these are spelled, in every request and once."""
    lines = ((b"x-gate", b"1"), (b"X-A", b"2"))

    assert Credentials(fixed=FIXED).on(lines) == ((b"X-A", b"2"), *FIXED)
    assert Credentials(fixed=FIXED).on(()) == FIXED


def test_a_fixed_authorization_stands_in_for_every_other() -> None:
    """The upstream sees no client's own."""
    fixed = ((b"authorization", b"Basic x"),)
    credentials = Credentials(key="ours", fixed=fixed)

    assert credentials.on((KEY,)) == fixed
    assert not Credentials(fixed=fixed).are_the_clients


def test_without_a_key_only_the_host_is_said() -> None:
    """The other lines may be what lets us in."""
    shown = Credentials(key="ours", fixed=FIXED).without_key

    assert shown.on((KEY, (b"X-A", b"1"))) == ((b"X-A", b"1"), FIXED[0])


def test_fixed_lines_are_not_printed() -> None:
    """They may hold a key."""
    assert "secret" not in repr(Credentials(fixed=FIXED))


INNER = "http://inner:8080"


@pytest.mark.parametrize(
    ("target", "base_url", "expected"),
    [
        (b"http://inner:8080/embed/", INNER, b"/embed/"),
        (b"https://INNER:8080/embed/?a=b#c", INNER, b"/embed/?a=b#c"),
        (b"//inner:8080/embed/", INNER, b"/embed/"),
        (b"http://inner:8080", INNER, b"/"),
        (b"http://inner:8080?a=b", INNER, b"/?a=b"),
        (b"http://inner/x", "http://inner", b"/x"),
        (b"http://inner:80/x", "http://inner", b"/x"),
        (b"http://inner/x", "http://inner:80", b"/x"),
        (b"http://[::1]:8080/x", "http://[::1]:8080", b"/x"),
        (b"http://inner:8080/v/embed/", f"{INNER}/v", b"/embed/"),
        (b"/v/embed/", f"{INNER}/v", b"/embed/"),
        (b"http://inner:8080//evil.example/x", INNER, b"/.//evil.example/x"),
        (b"http://inner:8080/\\evil.example/x", INNER, b"/./\\evil.example/x"),
    ],
)
def test_what_leads_to_the_upstream_leads_back_to_where_the_client_asked(
    target: bytes, base_url: str, expected: bytes
) -> None:
    """No client knows the upstream's own name."""
    lines = ((b"location", target), (b"Content-Location", target), (b"X", target))

    led = lead_back(lines, base_url)

    assert [value for _, value in led] == [expected, expected, target]


@pytest.mark.parametrize(
    ("target", "base_url"),
    [
        (b"https://elsewhere.example/embed", INNER),
        (b"http://inner:8081/embed", INNER),
        (b"http://inner:8080.evil.example/embed", INNER),
        (b"http://user@inner:8080/embed", INNER),
        (b"https://inner/embed", "http://inner"),
        (b"http://inner:8080/other", f"{INNER}/v"),
        (b"http://inner:8080/vx", f"{INNER}/v"),
        (b"embed/", INNER),
        (b"/embed/", INNER),
        (b"", INNER),
        (b"mailto:a@b", INNER),
        (b"http://[", INNER),
    ],
)
def test_what_leads_elsewhere_stays(target: bytes, base_url: str) -> None:
    """It is the server's word."""
    assert lead_back(((b"Location", target),), base_url) == ((b"Location", target),)


# What clients say of answers that were given before


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
