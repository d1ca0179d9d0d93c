"""How the text of a setting becomes a value, or an error."""

import re

import pytest

from abproxy.settings import parsers


@pytest.mark.parametrize("text", ["1", "32", " 7 "])
def test_a_whole_number_is_read(text: str) -> None:
    """What is large enough is taken."""
    assert parsers.at_least(1)(text) == int(text)


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "many", "1e3"])
def test_a_number_too_small_or_not_whole_is_refused(text: str) -> None:
    """The message says what was expected and what was got."""
    with pytest.raises(ValueError, match=f"1 or more, not '{text}'"):
        parsers.at_least(1)(text)


def test_a_wait_may_be_zero() -> None:
    """`MAX_WAIT_TIME=0` is the default, and legal."""
    assert parsers.milliseconds("0") == 0


@pytest.mark.parametrize("text", ["-1", "nan", "inf", "1s", "abc"])
def test_a_wait_is_a_number_of_milliseconds(text: str) -> None:
    """The unit is in the message."""
    with pytest.raises(ValueError, match=f"milliseconds, 0 or more, not '{text}'"):
        parsers.milliseconds(text)


def test_a_timeout_may_be_a_fraction() -> None:
    """Half a second is a timeout."""
    assert parsers.seconds("0.5") == 0.5


def test_a_timeout_may_not_be_zero() -> None:
    """Nothing could ever be done in time."""
    with pytest.raises(ValueError, match="greater than 0, not '0'"):
        parsers.seconds("0")


@pytest.mark.parametrize("text", ["0", "8081", "65535", "tcp:8081", "unix:/x.sock"])
def test_a_port_is_a_number_or_an_endpoint(text: str) -> None:
    """A colon makes an endpoint."""
    assert parsers.port(text) == text


@pytest.mark.parametrize("text", ["65536", "-1", "http", "80a"])
def test_another_port_is_refused(text: str) -> None:
    """Ports end at 65535."""
    with pytest.raises(ValueError, match="from 0 to 65535"):
        parsers.port(text)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("https://host/prefix/", "https://host/prefix"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("http://[fe80::1%25eth0]:8080", "http://[fe80::1%25eth0]:8080"),
        ("http://text_embeddings:8080", "http://text_embeddings:8080"),
        ("http://host.:8080", "http://host.:8080"),
        ("http://Höst.example:8080/v1/", "http://xn--hst-sna.example:8080/v1"),
        ("https://a_b.höst", "https://a_b.xn--hst-sna"),
    ],
)
def test_a_url_is_read(text: str, url: str) -> None:
    """A slash at its end means nothing."""
    assert parsers.url(text) == url


@pytest.mark.parametrize(
    "text",
    [
        "host:8080",
        "ftp://host",
        "http://",
        "http://host:0",
        "http://host:99999",
        "http://host:port",
        "http://[::1",
        "http://ho st",
        "http://host\n",
    ],
)
def test_what_is_no_url_is_refused(text: str) -> None:
    """Only http and https, with a host."""
    with pytest.raises(ValueError, match="expected a URL like"):
        parsers.url(text)


@pytest.mark.parametrize(
    "text",
    [
        "http://a..b",
        "http://.a",
        "http://a,b:80",
        "http://a%20b",
        f"http://{'a' * 64}",
        f"http://{'a.' * 127}a",
        "http://a☃️☠\u0300_:80",
        "http://*:80",
    ],
)
def test_a_host_that_no_resolver_can_find_is_refused(text: str) -> None:
    """At the start, and not by each call."""
    with pytest.raises(ValueError, match="expected the name"):
        parsers.url(text)


def test_a_path_that_is_not_ascii_is_refused() -> None:
    """Nothing says how it is to be encoded."""
    with pytest.raises(ValueError, match="path of ASCII"):
        parsers.url("http://host/höst")


@pytest.mark.parametrize(
    "text", ["http://me@host", "http://host?", "http://host/?a=1", "http://host/#a"]
)
def test_a_url_has_nothing_that_would_get_lost(text: str) -> None:
    """User, query and fragment could not be sent upstream."""
    with pytest.raises(ValueError, match="without user, query or fragment"):
        parsers.url(text)


@pytest.mark.parametrize(
    ("text", "servers"),
    [
        ("http://a:80/", [("http://a:80", 1.0)]),
        ("http://a, http://b/p ,", [("http://a", 1.0), ("http://b/p", 1.0)]),
        ("http://a=2,http://b=0.5", [("http://a", 2.0), ("http://b", 0.5)]),
        ("http://a/x=y", [("http://a/x=y", 1.0)]),
        ("http://[::1]:80=3", [("http://[::1]:80", 3.0)]),
    ],
)
def test_servers_are_read_with_their_weights(
    text: str, servers: list[tuple[str, float]]
) -> None:
    """What is read is a text again, in which nothing is to be corrected."""
    read = parsers.servers(text)

    assert parsers.weighted(read) == servers
    assert parsers.servers(read) == read


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("http://a,b:80", "expected a URL like http://host:port, not 'b:80'"),
        ("http://a,http://b=fast", "expected a weight greater than 0, not 'fast'"),
        ("http://a=0", "expected a weight greater than 0, not '0'"),
        ("http://a=nan,http://b", "expected a weight greater than 0, not 'nan'"),
        ("http://a,http://a/", "expected each server once, not twice 'http://a'"),
        ("http://a:80,http://A", "expected each server once, not twice 'http://A'"),
        (
            "https://a=2,HTTPS://a:443",
            "expected each server once, not twice 'HTTPS://a:443'",
        ),
        (",", "expected a URL like"),
    ],
)
def test_what_is_no_list_of_servers_is_refused(text: str, why: str) -> None:
    """The error names what is wrong in it."""
    with pytest.raises(ValueError, match=re.escape(why)):
        parsers.servers(text)


@pytest.mark.parametrize(("text", "read"), [("p95", "p95"), ("0.50", "0.5")])
def test_the_time_to_send_twice_is_read(text: str, read: str) -> None:
    """Seconds, or a word."""
    assert parsers.hedge_after(text) == read


@pytest.mark.parametrize("text", ["p99", "0", "-1", "soon"])
def test_what_is_no_time_to_send_twice_is_refused(text: str) -> None:
    """Only one percentile is known, and the error names it."""
    with pytest.raises(ValueError, match=r"expected .* or p95, not"):
        parsers.hedge_after(text)


@pytest.mark.parametrize("text", ["1", "true", "Yes", "ON"])
def test_a_switch_is_on(text: str) -> None:
    """Case does not matter."""
    assert parsers.yes_or_no(text)


@pytest.mark.parametrize("text", ["0", "false", "No", "OFF"])
def test_a_switch_is_off(text: str) -> None:
    """Case does not matter."""
    assert not parsers.yes_or_no(text)


def test_another_position_of_a_switch_is_refused() -> None:
    """There are only two."""
    with pytest.raises(ValueError, match="expected true or false, not 'maybe'"):
        parsers.yes_or_no("maybe")


def test_a_known_name_is_read() -> None:
    """It is its own value."""
    assert parsers.one_of("minilm", "static")("static") == "static"


def test_an_unknown_name_is_refused() -> None:
    """The message lists the known ones."""
    with pytest.raises(ValueError, match="one of minilm, static, not 'big'"):
        parsers.one_of("minilm", "static")("big")


def test_a_url_with_credentials_is_not_repeated() -> None:
    """A password does not belong into a log."""
    with pytest.raises(ValueError, match=r"not one with credentials$"):
        parsers.url("ftp://me:secret@host")


def test_a_key_is_read() -> None:
    """Visible characters, whatever they are."""
    assert parsers.key("s3cret/+=") == "s3cret/+="


@pytest.mark.parametrize("text", ["two words", "schlüssel", "line\n"])
def test_a_key_that_cannot_be_sent_is_not_repeated(text: str) -> None:
    """It could be part of a real one."""
    with pytest.raises(ValueError, match=r"visible ASCII characters$"):
        parsers.key(text)


def test_names_of_lines_and_members_are_read() -> None:
    """Lines without case, members as they are."""
    text = " X-User-Id, x-openwebui-* ,body.User,BODY.user"

    assert parsers.shared_names(text) == (
        *("x-user-id", "x-openwebui-*"),
        *("body.User", "body.user"),
    )


@pytest.mark.parametrize(
    "text", ["x user", "x-*-id", "x:1", "body.", 'body."', "body.a*", "é"]
)
def test_what_is_no_name_is_refused(text: str) -> None:
    """The message says what is."""
    with pytest.raises(ValueError, match="expected the name of a header line"):
        parsers.shared_names(text)


def test_commas_alone_are_no_names() -> None:
    """An empty value is none; this is a mistake."""
    with pytest.raises(ValueError, match="found none"):
        parsers.shared_names(" , ,")


@pytest.mark.parametrize("text", ["Authorization", "a,X-Api-Key", "x-forwarded-*", "*"])
def test_a_credential_is_not_ignored(text: str) -> None:
    """Not at the start, and not by a reload."""
    with pytest.raises(ValueError, match="credential"):
        parsers.ignored_names(text)


@pytest.mark.parametrize("text", ["body.input", "body.dimensions", "body.model"])
def test_a_member_that_changes_answers_is_not_ignored(text: str) -> None:
    """A shared request would go without it."""
    with pytest.raises(ValueError, match=f"answers depend on {text}"):
        parsers.ignored_names(text)


def test_what_no_answer_depends_on_can_be_ignored() -> None:
    """Lines that are not known, and OpenAI's name of the end user."""
    assert parsers.ignored_names("X-Tenant-Color,body.user,body.input_type") == (
        *("x-tenant-color", "body.user", "body.input_type"),
    )


@pytest.mark.parametrize("between", ["|", " | ", "\n", "\r\n"])
def test_header_lines_are_read(between: str) -> None:
    """With a bar in `.env`, or with newlines where these can be written."""
    text = f"Host: model.example{between}X-Key:a:b c{between}"

    assert parsers.header_lines(text) == (("Host", "model.example"), ("X-Key", "a:b c"))


@pytest.mark.parametrize(
    "line",
    [
        *("sesame", "X-Key : sesame", "X Key: sesame", ": sesame", "X-Key: ses\rame"),
        *("X-Key: sesame\0", "X-Key: sésame", "X-Key:", "\tX: \x7fsesame"),
        *("Content-Length: 5sesame", "Transfer-Encoding: sesame", "TE: sesame"),
        *("Connection: sesame", "Content-Type: sesame", "Host: ses ame"),
        *("x-key: sesame | X-Key: sesame",),
    ],
)
def test_a_line_that_is_none_or_not_ours_is_refused(line: str) -> None:
    """The message does not repeat it: it may hold a key."""
    with pytest.raises(ValueError, match=r"line|be set|Host") as refused:
        parsers.header_lines(f"X-Good: 1|{line}")

    assert "sesame" not in str(refused.value)
