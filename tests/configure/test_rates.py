"""What the account at a hosted API may have, from settings and from the table."""

import pytest

from abproxy.configure import retry_timeouts_for
from abproxy.errors import SettingsError
from abproxy.models.limits import limits_for, rates_for
from abproxy.settings.settings import Settings, settings_from
from abproxy.upstream.server_info import ServerInfo
from abproxy.workers.shares import share_of

VOYAGE = "https://api.voyageai.com"


def test_a_server_of_ones_own_has_no_rates() -> None:
    """Nothing is counted in front of it."""
    rates = rates_for(Settings())

    assert not rates.are_any
    assert rates.most_of(b'"voyage-4"') == (None, None)


def test_what_is_set_is_what_is_paced() -> None:
    """Requests and tokens a minute."""
    rates = rates_for(
        Settings(upstream_requests_per_minute=60, upstream_tokens_per_minute=1000)
    )

    assert rates.are_any
    assert (rates.requests, rates.tokens) == (60, 1000)


def test_a_known_host_is_watched_and_has_the_caps_of_its_models() -> None:
    """Without a setting."""
    chosen = Settings(upstream_url=VOYAGE)
    rates, limits = rates_for(chosen), limits_for(chosen, ServerInfo())

    assert rates.are_any
    assert rates.most_of(b'"voyage-4"') == (1000, 320_000)
    assert limits.caps.items == 1000
    assert limits.budget >= 2 * 1000


def test_settings_win_over_the_table() -> None:
    """An account may have other limits than most."""
    chosen = Settings(
        upstream_url=VOYAGE,
        max_batch_inputs=2000,
        max_batch_tokens=400_000,
        budget=9999,
    )

    assert rates_for(chosen).most_of(b'"voyage-4"') == (None, 400_000)
    limits = limits_for(chosen, ServerInfo())
    assert (limits.caps.items, limits.budget) == (2000, 9999)


def test_a_cap_of_tokens_alone_is_watched_for() -> None:
    """How many bytes it is, is learned from answers."""
    assert rates_for(Settings(max_batch_tokens=1000)).are_any


def test_workers_share_the_account() -> None:
    """Each has its part of what is set, and takes its part of what is stated."""
    chosen = Settings(workers=4, upstream_requests_per_minute=100)
    rates = rates_for(share_of(chosen, VOYAGE))

    assert rates.requests == 25
    assert rates.shares == 4


@pytest.mark.parametrize(("patience_s", "usual_s"), [(None, 5), (2.0, 2)])
def test_a_patience_that_is_not_set_follows_the_rate_limit(
    patience_s: float | None, usual_s: float
) -> None:
    """And is the usual one where no limit says more."""
    chosen = Settings(overload_patience_s=patience_s)

    assert rates_for(chosen).patience_s == patience_s
    assert retry_timeouts_for(chosen).overload_s == usual_s


OPENAI, AZURE = "https://api.openai.com", "https://mine.openai.azure.com"


def test_several_hosts_have_several_accounts() -> None:
    """What one of them states is not true of the other."""
    assert rates_for(Settings(upstream_url=OPENAI)).is_one_account
    assert rates_for(Settings(upstream_url=f"{OPENAI}/a,{OPENAI}/b")).is_one_account
    assert not rates_for(Settings(upstream_url=f"{OPENAI},{AZURE}")).is_one_account


def test_hosts_of_one_api_share_its_caps() -> None:
    """And others have none that is known for all of them."""
    same = f"{AZURE},https://other.openai.azure.com=2"

    assert limits_for(Settings(upstream_url=same), ServerInfo()).caps.items == 2048
    mixed = limits_for(Settings(upstream_url=f"{AZURE},{VOYAGE}"), ServerInfo())
    assert mixed.caps.items == 32


@pytest.mark.parametrize(
    "name", ["UPSTREAM_REQUESTS_PER_MINUTE", "UPSTREAM_TOKENS_PER_MINUTE"]
)
def test_a_rate_for_several_hosts_is_refused(name: str) -> None:
    """It is of one account, and which of them has it is not known."""
    environ = {"INFERENCE_SERVICE_URL": f"{OPENAI},{AZURE}", name: "60"}

    with pytest.raises(SettingsError, match=name):
        settings_from({}, environ, {})
