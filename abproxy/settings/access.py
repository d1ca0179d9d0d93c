"""Who may call."""

from attrs import frozen

from abproxy.settings import parsers
from abproxy.settings.field import secret, setting


@frozen(kw_only=True, slots=False)
class Access:
    """Who may call."""

    api_keys: tuple[str, ...] = secret(
        "api-key",
        parsers.keys,
        (),
        "keys, separated by commas; clients must send one of them as `Authorization: "
        "Bearer`; it is not passed on to the inference server",
    )
    bulk_api_keys: tuple[str, ...] = secret(
        "bulk-api-key",
        parsers.keys,
        (),
        "more such keys, for calls of low priority: as if they had X-Priority: bulk",
    )
    trusted_proxies: tuple[str, ...] = setting(
        "trusted-proxies",
        parsers.proxies,
        (),
        "addresses, networks, unix",
        "proxies that tell the addresses of clients, in `Forwarded` or "
        "`X-Forwarded-For`, or in a PROXY header, which no others may send then; "
        "separated by commas; unix: all that connect to a Unix socket",
    )
