"""Which client a request counts for: in limits, in the access log, in isolation."""

from pathlib import Path
from typing import Any

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.web.http_headers import Headers

from abproxy.configure import clients_for, policy_for
from abproxy.events import RequestInfo
from abproxy.settings.settings import Settings
from abproxy.web.auth import Caller
from support.proxy import InMemoryProxy, in_memory_proxy, without
from support.upstream import HeldUpstream, OpenUpstream

PROXY = IPv4Address("TCP", "10.0.0.1", 1)
BODY = b'{"inputs":"a"}'
TRUSTED = ("10.0.0.0/8",)


def _from(address: str) -> Any:
    kind = IPv6Address if ":" in address else IPv4Address
    return kind("TCP", address, 1)


def _limited(*, is_fast: bool = True, **settings: Any) -> InMemoryProxy:
    """Make a proxy of which each client may ask twice in a second."""
    return in_memory_proxy(OpenUpstream(), is_fast=is_fast, rate_limit=2, **settings)


def _statuses(
    proxy: InMemoryProxy, count: int, *headers: tuple[str, str], peer: Any
) -> list[int]:
    """Ask several times, on one connection from *peer*."""
    client = proxy.connect(address=peer)
    for _ in range(count):
        client.embed(BODY, *headers)
        proxy.flush()
    statuses = [answer.status for answer in client.answers()]
    client.leave()
    return statuses


def _told(address: str) -> tuple[str, str]:
    return "X-Forwarded-For", address


@pytest.mark.parametrize("is_fast", [True, False])
def test_a_made_up_key_is_no_other_client(*, is_fast: bool) -> None:
    """No key is asked for, so what is shown could be another one with each call."""
    proxy = _limited(is_fast=is_fast)

    statuses = [
        _statuses(proxy, 1, ("Authorization", f"Bearer {n}"), peer=_from("192.0.2.7"))
        for n in range(4)
    ]

    assert statuses == [[200], [200], [429], [429]]


def test_a_made_up_key_has_no_share_of_its_own_in_the_queue() -> None:
    """It is the address that may have so much waiting."""
    proxy = in_memory_proxy(HeldUpstream(), slots=1, max_waiting_inputs_of_one=2)
    clients = [proxy.connect(address=_from("192.0.2.7")) for _ in range(5)]

    for number, client in enumerate(clients):
        shown = ("Authorization", f"Bearer {number}")
        client.embed(BODY, shown)
    proxy.flush()

    refused = [client for client in clients if client.transport.value()]
    assert [each.answers()[0].status for each in refused] == [429] * 2
    for client in clients:
        client.leave()
    assert proxy.collector.admission.of_clients == {}


@pytest.mark.parametrize("is_fast", [True, False])
def test_a_key_is_a_client_from_wherever_it_comes(*, is_fast: bool) -> None:
    """And two keys at one address are two clients."""
    proxy = _limited(is_fast=is_fast, api_keys=("one", "two"))
    one, two = ("Authorization", "Bearer one"), ("Authorization", "Bearer two")

    assert _statuses(proxy, 2, one, peer=_from("192.0.2.7")) == [200, 200]
    assert _statuses(proxy, 1, one, peer=_from("192.0.2.8")) == [429]
    assert _statuses(proxy, 1, two, peer=_from("192.0.2.7")) == [200]


@pytest.mark.parametrize("is_fast", [True, False])
def test_clients_of_a_trusted_proxy_are_told_apart(*, is_fast: bool) -> None:
    """Though they come on one connection, one after the other."""
    proxy = _limited(is_fast=is_fast, trusted_proxies=TRUSTED)
    client = proxy.connect(address=PROXY)

    for last in (7, 7, 7, 8, 7):
        client.embed(BODY, _told(f"203.0.113.66, 192.0.2.{last}"))
        proxy.flush()

    statuses = [answer.status for answer in client.answers()]
    assert statuses == [200, 200, 429, 200, 429]


@pytest.mark.parametrize("is_fast", [True, False])
def test_others_do_not_choose_their_address(*, is_fast: bool) -> None:
    """Neither who is not trusted, nor anyone where no proxy is."""
    some = _limited(is_fast=is_fast, trusted_proxies=TRUSTED)
    none = _limited(is_fast=is_fast)

    for proxy in (some, none):
        statuses = [
            _statuses(proxy, 1, _told(f"192.0.2.{last}"), peer=_from("203.0.113.66"))
            for last in range(3)
        ]
        assert statuses == [[200], [200], [429]]


def test_a_unix_socket_is_one_client() -> None:
    """There is no address that could be one."""
    proxy = _limited()
    peer = UNIXAddress(b"")

    assert _statuses(proxy, 2, _told("192.0.2.7"), peer=peer) == [200, 200]
    assert _statuses(proxy, 1, _told("192.0.2.8"), peer=peer) == [429]


def test_a_trusted_unix_socket_is_a_proxy() -> None:
    """A balancer on the same machine may use one."""
    proxy = _limited(trusted_proxies=("unix",))
    peer = UNIXAddress(b"")

    assert _statuses(proxy, 3, _told("192.0.2.7"), peer=peer) == [200, 200, 429]
    assert _statuses(proxy, 1, _told("192.0.2.8"), peer=peer) == [200]


def test_ipv4_through_a_socket_for_both_is_the_same_client() -> None:
    """The address may be written as IPv6."""
    proxy = _limited()

    assert _statuses(proxy, 2, peer=_from("192.0.2.7")) == [200, 200]
    assert _statuses(proxy, 1, peer=_from("::ffff:192.0.2.7")) == [429]


def test_a_new_ipv6_address_in_the_same_network_is_the_same_client() -> None:
    """A machine may take one for each call."""
    proxy = _limited()

    assert _statuses(proxy, 2, peer=_from("2001:db8::1")) == [200, 200]
    assert _statuses(proxy, 1, peer=_from("2001:db8::2")) == [429]
    assert _statuses(proxy, 1, peer=_from("2001:db8:0:1::1")) == [200]


@pytest.mark.parametrize("is_fast", [True, False])
def test_proxies_change_while_connections_are_open(*, is_fast: bool) -> None:
    """From one call to the next."""
    proxy = _limited(is_fast=is_fast)
    client = proxy.connect(address=PROXY)
    ask = [_told("192.0.2.7"), _told("192.0.2.8")]

    for line in (*ask, ask[0]):
        client.embed(BODY, line)
        proxy.flush()
    settings = Settings(trusted_proxies=TRUSTED, rate_limit=2)
    proxy.app.policy = policy_for(settings, proxy.app.policy.models)
    for line in ask:
        client.embed(BODY, line)
        proxy.flush()

    statuses = [answer.status for answer in client.answers()]
    assert statuses == [200, 200, 429, 200, 200]


@pytest.mark.parametrize("is_fast", [True, False])
def test_the_access_log_names_the_client_that_limits_count(
    tmp_path: Path, *, is_fast: bool
) -> None:
    """With its whole address, also where a network counts as one."""
    file = tmp_path / "access.log"
    fast_paths = without() if is_fast else without("server")
    proxy = in_memory_proxy(
        OpenUpstream(),
        access_log=str(file),
        fast_paths=fast_paths,
        trusted_proxies=(*TRUSTED, "unix"),
    )

    _statuses(proxy, 1, _told("2001:db8::7, 10.0.0.9"), peer=PROXY)
    _statuses(proxy, 1, peer=PROXY)
    _statuses(proxy, 1, _told("192.0.2.7"), peer=_from("203.0.113.66"))
    _statuses(proxy, 1, _told("192.0.2.7"), peer=UNIXAddress(b""))
    _statuses(proxy, 1, peer=UNIXAddress(b""))
    proxy.telemetry.access_log._file.close()

    hosts = [line.split()[0] for line in file.read_text().splitlines()]
    assert hosts == ["2001:db8::7", "10.0.0.1", "203.0.113.66", "192.0.2.7", "-"]


def _identify(*headers: tuple[bytes, bytes], **about: Any) -> Caller:
    lines = Headers()
    for name, value in headers:
        lines.addRawHeader(name, value)
    clients = clients_for(Settings(api_keys=("one",)))
    request = RequestInfo(method=b"POST", target=b"/embed", headers=lines, **about)
    return clients.identify(request)


def test_a_wrong_key_is_no_client() -> None:
    """What it is let in for, as a preflight, counts for its address."""
    wrong = _identify((b"Authorization", b"Bearer nope"), client_host="192.0.2.7")

    assert wrong.client == b"192.0.2.7"


def test_a_client_cannot_look_like_a_key() -> None:
    """Keys and addresses are never taken for one another."""
    right = _identify((b"Authorization", b"Bearer one"), client_host="192.0.2.7")

    assert right.client == b"Bearer one"


@pytest.mark.parametrize("is_fast", [True, False])
def test_bad_calls_are_those_of_the_client_behind_the_proxy(*, is_fast: bool) -> None:
    """Not of its connection, on which others call as well."""
    seen: list[Any] = []
    proxy = in_memory_proxy(OpenUpstream(), is_fast=is_fast, trusted_proxies=TRUSTED)
    collector = proxy.collector

    def submit(call: Any) -> Any:
        seen.append(call.sender)
        return collector.submit(call)

    proxy.serve(compute=submit)
    client = proxy.connect(address=PROXY)
    for last in (7, 8, 7):
        client.embed(BODY, _told(f"192.0.2.{last}"))
        proxy.flush()

    assert seen[0] == seen[2] == "192.0.2.7"
    assert seen[1] == "192.0.2.8"
