"""What `/-/status.json` says, described."""

from abproxy.web.openapi.schemas import (
    NUMBER,
    TEXT,
    TRUTH,
    WHOLE,
    Schema,
    list_of,
    map_of,
    object_of,
    or_null,
)

__all__ = ["STATUS"]

_UPSTREAM = object_of(
    url=TEXT,
    state=TEXT,
    why=TEXT,
    since=NUMBER,
    max_batch_inputs=or_null(WHOLE),
    max_inputs_in_flight=or_null(WHOLE),
    max_input_length=or_null(WHOLE),
    task=or_null(TEXT),
    model=or_null(TEXT),
    version=or_null(TEXT),
)

_LANE = object_of(
    route=TEXT,
    options=list_of(TEXT),
    has_key=TRUTH,
    is_bulk=TRUTH,
    calls=WHOLE,
    items=WHOLE,
    oldest_wait_ms=NUMBER,
)

_VERDICT = object_of(
    helps=or_null(TRUTH),
    text=TEXT,
    advice=or_null(object_of(setting=TEXT, why=TEXT)),
    calls=WHOLE,
    calls_per_request=or_null(NUMBER),
    alone_ms_per_item=or_null(NUMBER),
    shared_ms_per_item=or_null(NUMBER),
    slot_limited=NUMBER,
    budget_limited=NUMBER,
    upstream_limited=NUMBER,
    limited_by=TEXT,
    period_s=NUMBER,
)

_BATCH = object_of(
    serial=WHOLE,
    at=NUMBER,
    route=TEXT,
    reason=TEXT,
    calls=WHOLE,
    items=WHOLE,
    wait_ms=NUMBER,
    upstream_ms=or_null(NUMBER),
)

STATUS: Schema = object_of(
    version=TEXT,
    now=NUMBER,
    started_at=NUMBER,
    upstream=_UPSTREAM,
    flow=map_of({"type": ["number", "boolean"]}),
    kept_by=TEXT,
    lanes=list_of(_LANE),
    totals=map_of(NUMBER),
    cpu_us_per_call=NUMBER,
    verdict=_VERDICT,
    batches=list_of(_BATCH),
    errors=list_of(object_of(at=NUMBER, reason=TEXT, message=TEXT, times=WHOLE)),
    settings=list_of(
        object_of(name=TEXT, value=TEXT, default=TEXT, unit=TEXT, meaning=TEXT)
    ),
    lately=map_of(NUMBER),
    workers=list_of(
        object_of(name=TEXT, answers=TRUTH, restarts=WHOLE, started_at=NUMBER)
    ),
)
