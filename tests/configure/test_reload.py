"""Settings that change while the proxy runs."""

from pathlib import Path

import attrs
import pytest
from twisted.web.resource import Resource

from abproxy.batching.concurrency import AdaptiveLimit
from abproxy.configure import reader_for
from abproxy.reload import CHANGEABLE, Configuration
from abproxy.settings.settings import Settings, settings_from
from abproxy.settings.sources import read_env_file
from abproxy.upstream.server_info import ServerInfo
from support.proxy import InMemoryProxy, in_memory_proxy
from support.upstream import HeldUpstream, OpenUpstream

INFO = ServerInfo(max_batch_inputs=16, max_inputs_in_flight=128)


def _configuration(proxy: InMemoryProxy, file: Path) -> Configuration:
    def read() -> Settings:
        return settings_from({}, {}, read_env_file(str(file)))

    model = proxy.model
    model.settings, model.upstream.discovery.info = read(), INFO
    serving = proxy.configuration.serving
    return Configuration(
        settings=model.settings, read=read, app=proxy.app, serving=serving
    )


def _started(proxy: InMemoryProxy, file: Path) -> Configuration:
    """Let the proxy go by what is in the file now, as from its start."""
    configuration = _configuration(proxy, file)
    configuration.apply(configuration.settings)
    return configuration


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Make an empty file of settings."""
    path = tmp_path / ".env"
    path.write_text("", encoding="utf-8")
    return path


def test_keys_change_without_a_restart(file: Path) -> None:
    """A new key opens the door, and an old one does no more."""
    upstream = OpenUpstream()
    proxy = in_memory_proxy(upstream)
    configuration = _configuration(proxy, file)
    file.write_text("API_KEY=new\n", encoding="utf-8")

    configuration.reload()

    assert proxy.ask("GET", "/info").status == 401
    shown = ("Authorization", "Bearer new")
    assert proxy.ask("GET", "/info", b"", shown).status == 200
    assert upstream.shown == [None]


def test_limits_change_without_a_restart(file: Path) -> None:
    """What is waiting and what is in flight is bounded anew."""
    proxy = in_memory_proxy(Resource())
    configuration = _configuration(proxy, file)
    lines = (
        "MAX_WAIT_TIME=20",
        "MAX_BATCH_SIZE=3",
        "MAX_BATCH_INPUTS=8",
        "SLOTS=5",
        "BUDGET=64",
        "MAX_WAITING_INPUTS=7",
        "RATE_LIMIT=9",
        "OVERSIZE=refuse",
        "CONNECT_PATIENCE=2",
    )
    file.write_text("\n".join(lines), encoding="utf-8")

    configuration.reload()

    collector = proxy.collector
    assert collector.max_wait_s == 0.02
    assert (collector.caps.calls, collector.caps.items) == (3, 8)
    assert collector.budget.slots.count == 5
    assert collector.budget.limit.items == 64
    assert collector.admission.max_items == 7
    assert proxy.app.policy.inputs_per_s == 9
    assert not collector.splits
    assert collector.retry_timeouts.connect_s == 2
    assert proxy.model.relay.connect_patience_s == 2


def test_the_rates_of_an_account_change_without_a_restart(file: Path) -> None:
    """A larger account is used at once."""
    proxy = in_memory_proxy(Resource())
    configuration = _configuration(proxy, file)
    file.write_text(
        "UPSTREAM_REQUESTS_PER_MINUTE=60\nUPSTREAM_TOKENS_PER_MINUTE=9000\n"
        "MAX_BATCH_TOKENS=100\nOVERLOAD_PATIENCE=9\n",
        encoding="utf-8",
    )

    configuration.reload()

    rates = proxy.model.collector.pace.rates
    assert (rates.requests, rates.tokens) == (60, 9000)
    assert (rates.batch_tokens, rates.patience_s) == (100, 9)
    assert proxy.model.collector.pace.is_active


def test_a_budget_that_is_taken_away_follows_again(file: Path) -> None:
    """Without a number the budget follows the upstream."""
    proxy = in_memory_proxy(Resource())
    file.write_text("BUDGET=64\n", encoding="utf-8")
    configuration = _configuration(proxy, file)
    file.write_text("", encoding="utf-8")

    configuration.reload()

    assert isinstance(proxy.collector.budget.limit, AdaptiveLimit)
    assert proxy.collector.budget.limit.ceiling == 128


def test_what_needs_a_restart_is_said(file: Path, said: list[str]) -> None:
    """By its own name, and a setting that cannot change yet is not ignored."""
    configuration = _configuration(in_memory_proxy(Resource()), file)
    file.write_text("PORT=9000\nMAX_BATCH_SIZE=3\n", encoding="utf-8")

    configuration.reload()

    assert "Settings changed: MAX_BATCH_SIZE" in said
    assert "Settings need a restart: PORT" in said


def test_a_setting_for_several_servers_is_of_no_use_for_one(
    file: Path, said: list[str]
) -> None:
    """The log says so at the start, and when settings are read again."""
    of_no_use = "HEDGE_AFTER is of no use: there is only one inference server, "
    proxy = in_memory_proxy(Resource(), hedge_after="p95")
    assert [each for each in said if each.startswith(of_no_use)]
    said.clear()
    file.write_text("HEDGE_AFTER=0.5", encoding="utf-8")

    _configuration(proxy, file).reload()

    assert [each for each in said if each.startswith(of_no_use)]


def test_to_look_up_the_addresses_of_no_name_is_of_no_use(said: list[str]) -> None:
    """The log says so: a name was meant, or nothing."""
    in_memory_proxy(Resource(), resolve="all", upstream_url="http://10.0.0.1:8080")

    assert "RESOLVE=all is of no use: no name is to be looked up in" in " ".join(said)


def test_a_mistake_changes_nothing(file: Path, said: list[str]) -> None:
    """A typo in the file does not stop a proxy that runs."""
    proxy = in_memory_proxy(Resource())
    configuration = _configuration(proxy, file)
    file.write_text("SLOTS=many\nAPI_KEY=secret\n", encoding="utf-8")

    configuration.reload()

    assert proxy.collector.budget.slots.count == 2
    assert any(line.startswith("Settings stay as they are") for line in said)
    assert "secret" not in "".join(said)


@pytest.mark.parametrize("name", ["API_KEY", "BULK_API_KEY"])
@pytest.mark.parametrize(
    "left", ["", "SLOTS=3\n", "API_KEY=\n", "API_KEY=,\n", "API_K"]
)
def test_a_reload_does_not_open_a_closed_door(
    file: Path, said: list[str], name: str, left: str
) -> None:
    """Whatever is left of the file, all settings stay as they were."""
    file.write_text(f"{name}=old\nRATE_LIMIT=9\n", encoding="utf-8")
    proxy = in_memory_proxy(OpenUpstream())
    configuration = _started(proxy, file)
    file.write_text(left, encoding="utf-8")

    configuration.reload()

    assert proxy.ask("GET", "/info").status == 401
    assert (proxy.app.policy.inputs_per_s, proxy.collector.budget.slots.count) == (
        9,
        2,
    )
    [line] = said
    assert line.startswith("Settings stay as they are: ")
    assert "old" not in line


def test_a_reload_that_would_open_the_door_says_what_to_do(
    file: Path, said: list[str]
) -> None:
    """Who wants it open restarts."""
    file.write_text("API_KEY=old\n", encoding="utf-8")
    configuration = _started(in_memory_proxy(OpenUpstream()), file)
    file.write_text("", encoding="utf-8")

    configuration.reload()

    assert "".join(said) == (
        "Settings stay as they are: no key is left in API_KEY or BULK_API_KEY, and a "
        "reload does not turn keys off; set a key, or restart without keys"
    )


def test_a_key_of_the_other_kind_keeps_the_door_closed(file: Path) -> None:
    """Of two kinds of keys one may go."""
    file.write_text("API_KEY=old\n", encoding="utf-8")
    proxy = in_memory_proxy(OpenUpstream())
    configuration = _started(proxy, file)
    file.write_text("BULK_API_KEY=new\n", encoding="utf-8")

    configuration.reload()

    old, new = ("Authorization", "Bearer old"), ("Authorization", "Bearer new")
    assert proxy.ask("GET", "/info", b"", old).status == 401
    assert proxy.ask("GET", "/info", b"", new).status == 200


def test_only_settings_that_exist_can_change() -> None:
    """The list of changeable settings is no fiction."""
    assert {each.name for each in attrs.fields(Settings)} >= CHANGEABLE


def test_what_may_share_a_batch_changes_without_a_restart(file: Path) -> None:
    """Lines and members alike."""
    upstream = HeldUpstream()
    proxy = in_memory_proxy(upstream, max_wait_ms=1000)
    configuration = _configuration(proxy, file)
    file.write_text(
        "MAX_WAIT_TIME=1000\nSHARE_IGNORE=x-user-*,body.user\n", encoding="utf-8"
    )

    configuration.reload()

    for user in ("a", "b"):
        line, body = ("X-User-Id", user), b'{"input":["a"],"user":"%b"}'
        client = proxy.connect()
        client.embed(body % user.encode(), line, path="/v1/embeddings")
    proxy.clock.advance(1)
    proxy.flush()
    assert upstream.bodies == [b'{"input":["a","a"]}']


def test_a_credential_is_not_ignored_by_a_reload(file: Path, said: list[str]) -> None:
    """All settings stay as they were."""
    configuration = _configuration(in_memory_proxy(Resource()), file)
    file.write_text("SHARE_IGNORE=X-Api-Key\nSLOTS=3\n", encoding="utf-8")

    configuration.reload()

    [line] = said
    assert line.startswith("Settings stay as they are: SHARE_IGNORE in the .env file")


@pytest.mark.parametrize(("info", "is_tei"), [(INFO, True), (ServerInfo(), False)])
def test_a_server_is_tei_if_its_info_says_so(info: ServerInfo, *, is_tei: bool) -> None:
    """Of any other nothing is known about members that its routes do not have."""
    reader = reader_for(Settings(), info)

    assert reader.members.is_tei is is_tei
