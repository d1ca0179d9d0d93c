"""
The limits of one worker: each gets an equal part of what is limited.

Parts are rounded down, so that their sum is never above the whole; but a
worker cannot do with nothing, so each has at least 1.  The budget is divided
where it is settled, as the upstream may decide it.
"""

from typing import Any

import attrs
from twisted.logger import Logger

from abproxy.models.limits import part_of
from abproxy.settings.key_files import KEY_FILES
from abproxy.settings.models import KEY_FILE, ModelsFile
from abproxy.settings.settings import Settings, member_of, of_models
from abproxy.settings.sources import variable

__all__ = ["share_of", "warn_of_too_little"]

_DIVIDED = frozenset(
    {
        "cache_bytes",
        "max_connections",
        "max_memory_bytes",
        "max_waiting_bytes",
        "max_waiting_inputs",
        "max_waiting_inputs_of_one",
        "slots",
        "upstream_requests_per_minute",
        "upstream_tokens_per_minute",
    }
)

_log = Logger()


def share_of(settings: Settings, upstream_url: str) -> Settings:
    """
    Return the settings of one worker, for the inference server that all share.

    A worker whose rate is limited counts what one client sends to it; a client
    with one connection is always with the same worker.
    """
    workers, rate = settings.workers, settings.rate_limit
    parts: dict[str, Any] = {
        name: part_of(whole, workers) for name, whole in _wholes(settings) if whole
    }
    # The supervisor looks at these files for all of them.
    parts |= {file.name: None for file in KEY_FILES}
    return attrs.evolve(
        settings,
        **parts,
        models=_models_of_one(settings.models, workers),
        rate_limit=rate
        if rate is None or settings.rate_limit_shared
        else rate / workers,
        embedded=False,
        upstream_url=upstream_url,
    )


def _models_of_one(models: ModelsFile | None, workers: int) -> ModelsFile | None:
    if models is None:
        return None
    divided = {member_of(each) for each in of_models() if each.name in _DIVIDED}
    tables = [
        attrs.evolve(
            table,
            texts={
                name: str(part_of(int(text), workers)) if name in divided else text
                for name, text in table.texts.items()
                if name != KEY_FILE
            },
        )
        for table in models.tables
    ]
    return attrs.evolve(models, tables=tuple(tables))


def warn_of_too_little(settings: Settings) -> None:
    """Log a warning for each limit that is smaller than the number of workers."""
    for name, whole in [*_wholes(settings), ("budget", settings.budget)]:
        if whole and whole < settings.workers:
            option = getattr(attrs.fields(Settings), name).metadata["option"]
            _log.warn(
                "{name} is {whole}, but each of {workers} workers has at least 1",
                name=variable(option),
                whole=whole,
                workers=settings.workers,
            )


def _wholes(settings: Settings) -> list[tuple[str, int | None]]:
    return [(name, getattr(settings, name)) for name in sorted(_DIVIDED)]
