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
    api_key_file: str | None = setting(
        "api-key-file",
        parsers.file,
        None,
        "file",
        "file with these keys instead, one a line; read again when it changes",
    )
    bulk_api_keys: tuple[str, ...] = secret(
        "bulk-api-key",
        parsers.keys,
        (),
        "more such keys, for calls of low priority: as if they had X-Priority: bulk",
    )
    bulk_api_key_file: str | None = setting(
        "bulk-api-key-file", parsers.file, None, "file", "file with these keys instead"
    )
    admin_keys: tuple[str, ...] = secret(
        "admin-key",
        parsers.keys,
        (),
        "keys of operators, for draining servers at `/-/upstreams`; without a key "
        "this page is a 404",
    )
    admin_key_file: str | None = setting(
        "admin-key-file", parsers.file, None, "file", "file with these keys instead"
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
