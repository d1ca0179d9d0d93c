"""What the operator chose, checked by `tap`; everyone else reads it here."""

from attrs import frozen

__all__ = ("Settings",)


@frozen(kw_only=True)
class Settings:
    """The limits of the server; the defaults are TEI's."""

    max_client_batch_size: int = 32
    """Inputs in one request."""

    max_concurrent_requests: int = 512
    """Permits: inputs accepted and not yet answered."""

    auto_truncate: bool = True
    api_key: str | None = None
    drain_timeout_s: float = 30.0
