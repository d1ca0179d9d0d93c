"""Who may call."""

from attrs import frozen

from abproxy.settings import parsers
from abproxy.settings.field import secret


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
