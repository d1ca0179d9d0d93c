"""What trusted proxies say about the address of a client."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.web.http_headers import Headers

from abproxy.http.forwarded import TrustedProxies, counted_as, plain_address

PEER = "10.0.0.1"
PROXIES = TrustedProxies.of(["10.0.0.0/8", "2001:db8:ff::/48", "unix"])


def told(name: str, *lines: str, peer: str = PEER) -> str:
    """Ask who the client is, if the proxy sends these *lines*."""
    headers = Headers({name.encode(): [line.encode("latin-1") for line in lines]})
    return PROXIES.client_of(peer, headers)


@pytest.mark.parametrize(
    ("line", "client"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("192.0.2.7, 10.0.0.9", "192.0.2.7"),
        ("203.0.113.66,192.0.2.7 ,\t10.0.0.9", "192.0.2.7"),
        ("made up!, 192.0.2.7", "192.0.2.7"),
        ("192.0.2.7:4711", "192.0.2.7"),
        ("2001:DB8::0007", "2001:db8::7"),
        ("[2001:db8::7]:4711", "2001:db8::7"),
        ("[2001:db8::7]", "2001:db8::7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("::ffff:c000:207", "192.0.2.7"),
        ("192.0.2.7, 2001:db8:ff::1", "192.0.2.7"),
        (",192.0.2.7,,", "192.0.2.7"),
        ("10.0.0.5, 10.0.0.9", "10.0.0.5"),
        ("192.0.2.7, unknown", PEER),
        ("192.0.2.7, unknown, 10.0.0.9", "10.0.0.9"),
        ("", PEER),
    ],
)
def test_x_forwarded_for_is_read_from_the_right(line: str, client: str) -> None:
    """The first address that is not trusted is the client's; the rest is made up."""
    assert told("X-Forwarded-For", line) == client


@pytest.mark.parametrize(
    ("line", "client"),
    [
        ("for=192.0.2.7", "192.0.2.7"),
        ("FOR=192.0.2.7;proto=https;by=10.0.0.1", "192.0.2.7"),
        ("proto=https; for=192.0.2.7 ; by=10.0.0.1", "192.0.2.7"),
        ('for="192.0.2.7:4711"', "192.0.2.7"),
        ('for="192.0.2.7:_port"', "192.0.2.7"),
        ('for="[2001:db8::7]"', "2001:db8::7"),
        ('for="[2001:db8::7]:4711"', "2001:db8::7"),
        (r'for="\[2001:db8::7\]"', "2001:db8::7"),
        ('for="[::ffff:192.0.2.7]"', "192.0.2.7"),
        ("for=203.0.113.66, for=192.0.2.7", "192.0.2.7"),
        ('for=192.0.2.7;host="a,b", for=10.0.0.9', "192.0.2.7"),
        ('for=", for=192.0.2.7', "192.0.2.7"),
        ('for=", for="[2001:db8::7]:4711"', "2001:db8::7"),
        ('by="for=203.0.113.66";for=192.0.2.7', "192.0.2.7"),
        ("for=192.0.2.7, for=unknown", PEER),
        ("for=192.0.2.7, for=_hidden", PEER),
        ('for=192.0.2.7, for="_hidden:_port", for=10.0.0.9', "10.0.0.9"),
        ("for=192.0.2.7, proto=https", PEER),
        ("for=10.0.0.5", "10.0.0.5"),
        ("", PEER),
    ],
)
def test_forwarded_is_read_from_the_right(line: str, client: str) -> None:
    """With quotes, brackets, ports, hidden names and all else that RFC 7239 allows."""
    assert told("Forwarded", line) == client


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("X-Forwarded-For", "192.0.2.7, 300.1.1.1"),
        ("X-Forwarded-For", "192.0.2.7, fe80::1%eth0"),
        ("X-Forwarded-For", "192.0.2.7, 10.0.0.9 10.0.0.8"),
        ("X-Forwarded-For", "192.0.2.7, 192.0.2.8:99999999"),
        ("X-Forwarded-For", "192.0.2.7, [192.0.2.8"),
        ("X-Forwarded-For", "192.0.2.7, localhost"),
        ("X-Forwarded-For", "192.0.2.7, 192.0.02.8"),
        ("X-Forwarded-For", "192.0.2.7, \xbd.1.1.1"),
        ("Forwarded", "for=2001:db8::7"),
        ("Forwarded", "for=[2001:db8::7]"),
        ("Forwarded", 'for="2001:db8::7"'),
        ("Forwarded", "for=192.0.2.7:80"),
        ("Forwarded", "for = 192.0.2.7"),
        ("Forwarded", 'for="192.0.2.7'),
        ("Forwarded", "for=192.0.2.7;for=192.0.2.8"),
        ("Forwarded", "for"),
        ("Forwarded", "for="),
        ("Forwarded", "192.0.2.7"),
        ("Forwarded", "," * 1000 + "x" + "," * 20),
    ],
)
def test_what_is_malformed_is_no_address(name: str, line: str) -> None:
    """The proxy itself is the client then."""
    assert told(name, line) == PEER


def test_forwarded_counts_more_than_x_forwarded_for() -> None:
    """A proxy that writes one may pass on the other as it came."""
    headers = Headers(
        {b"Forwarded": [b"for=192.0.2.7"], b"X-Forwarded-For": [b"192.0.2.8"]}
    )

    assert PROXIES.client_of(PEER, headers) == "192.0.2.7"


def test_the_last_line_of_several_is_the_nearest() -> None:
    """Some proxies add a line where others add to one."""
    assert told("X-Forwarded-For", "203.0.113.66", "192.0.2.7, 10.0.0.9") == "192.0.2.7"


def test_without_a_line_the_proxy_is_the_client() -> None:
    """Its health checks are its own."""
    assert PROXIES.client_of(PEER, Headers()) == PEER


def test_too_many_proxies_are_malformed() -> None:
    """What is looked at is bounded."""
    assert told("X-Forwarded-For", "192.0.2.7" + ", 10.0.0.9" * 40) == PEER


@pytest.mark.parametrize(
    ("host", "is_trusted"),
    [
        ("10.255.0.1", True),
        ("11.0.0.1", False),
        ("::ffff:10.0.0.1", True),
        ("2001:db8:ff:1::1", True),
        ("2001:db8:fe::1", False),
        ("", True),
        ("no address", False),
    ],
)
def test_proxies_are_known_by_address_and_network(
    host: str, *, is_trusted: bool
) -> None:
    """Of either kind, also where IPv4 is written as IPv6."""
    assert PROXIES.trusts(host) is is_trusted


def test_a_unix_socket_is_trusted_only_if_asked_for() -> None:
    """Who may open it is for the file system to say."""
    assert not TrustedProxies.of(["0.0.0.0/0", "::/0"]).trusts("")


@given(
    st.sampled_from(["Forwarded", "X-Forwarded-For"]),
    st.text(st.sampled_from('for=192.0.2.7,;" \t\\[]:abcdef_unknown%'), max_size=60),
)
def test_a_client_cannot_choose_its_address(name: str, sent: str) -> None:
    """Whatever it sends, the proxy adds the right one behind."""
    added = 'for="[2001:db8::7]:1"' if name == "Forwarded" else "2001:db8::7"

    assert told(name, f"{sent}, {added}") == "2001:db8::7"
    assert told(name, sent, added) == "2001:db8::7"


@given(st.binary(max_size=100), st.sampled_from([b"Forwarded", b"X-Forwarded-For"]))
def test_no_bytes_are_an_error(sent: bytes, name: bytes) -> None:
    """Who the client is is always known."""
    line = sent.replace(b"\n", b"").replace(b"\r", b"")

    assert PROXIES.client_of(PEER, Headers({name: [line]})) is not None


@pytest.mark.parametrize(
    ("host", "counted"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::7", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_an_ipv6_network_of_64_bits_counts_as_one(host: str, counted: str) -> None:
    """A machine may take a new address in it for each call."""
    assert counted_as(host) == counted


@pytest.mark.parametrize(
    ("host", "plain"),
    [
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("::1", "::1"),
        ("192.0.2.7", "192.0.2.7"),
        ("", ""),
        ("::x", "::x"),
    ],
)
def test_ipv4_in_ipv6_is_ipv4(host: str, plain: str) -> None:
    """A socket for both kinds writes it so."""
    assert plain_address(host) == plain
