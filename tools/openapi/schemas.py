"""The JSON schemas of answers, and the functions that schemas are made with."""

from typing import Any

from abproxy.events import ServerState

__all__ = [
    "EMBEDDINGS",
    "NUMBER",
    "NUMBERS",
    "ONE_UPSTREAM",
    "OPENAI_ERROR",
    "RANK",
    "READINESS",
    "SCORES",
    "STATUS",
    "TEI_ERROR",
    "TEXT",
    "TOKENS",
    "UPSTREAMS",
    "WHOLE",
    "Schema",
    "list_of",
    "object_of",
]

Schema = dict[str, Any]


def list_of(items: Schema) -> Schema:
    """Return the schema of a list of *items*."""
    return {"type": "array", "items": items}


def object_of(**properties: Schema) -> Schema:
    """Return the schema of an object that has all these *properties*."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
    }


def map_of(values: Schema) -> Schema:
    """Return the schema of an object with any names and these *values*."""
    return {"type": "object", "additionalProperties": values}


def or_null(schema: Schema) -> Schema:
    """Return the schema of what may also be null."""
    return {"anyOf": [schema, {"type": "null"}]}


TEXT: Schema = {"type": "string"}
TRUTH: Schema = {"type": "boolean"}
WHOLE: Schema = {"type": "integer"}
NUMBER: Schema = {"type": "number"}


# Answers of the batched routes

NUMBERS = list_of(NUMBER)
SCORES = list_of(object_of(score=NUMBER, label=TEXT))
RANK: Schema = {
    "type": "object",
    "properties": {"index": WHOLE, "text": TEXT, "score": NUMBER},
    "required": ["index", "score"],
}
TOKENS = list_of(
    object_of(id=WHOLE, text=TEXT, special=TRUTH) | {"additionalProperties": True}
)
EMBEDDINGS = object_of(
    object={"const": "list"},
    data=list_of(
        object_of(
            object={"const": "embedding"},
            index=WHOLE,
            embedding={"anyOf": [NUMBERS, TEXT]},
        )
    ),
    model=TEXT,
    usage=object_of(prompt_tokens=WHOLE, total_tokens=WHOLE),
)
TEI_ERROR = object_of(error=TEXT, error_type=TEXT)
OPENAI_ERROR = object_of(message=TEXT, code=WHOLE, type=TEXT)


# Answers of abproxy's own pages

READINESS = object_of(
    ready=TRUTH, reasons=list_of(object_of(reason=TEXT, message=TEXT))
)

_SERVER = object_of(
    address=TEXT,
    state={"enum": [state.value for state in ServerState]},
    why=TEXT,
    since=NUMBER,
    takes_part=TRUTH,
    model=or_null(TEXT),
    version=or_null(TEXT),
    max_batch_inputs=or_null(WHOLE),
    max_inputs_in_flight=or_null(WHOLE),
    weight=NUMBER,
    requests_in_flight=WHOLE,
    inputs_in_flight=WHOLE,
    inputs_per_s=NUMBER,
    share=NUMBER,
    last_error=or_null(TEXT),
    last_error_at=or_null(NUMBER),
    outcomes=map_of(WHOLE),
    sent_elsewhere=map_of(WHOLE),
    ejections=WHOLE,
)

_UPSTREAM = object_of(
    url=TEXT,
    state=TEXT,
    why=TEXT,
    since=NUMBER,
    max_batch_inputs=or_null(WHOLE),
    max_inputs_in_flight=or_null(WHOLE),
    max_input_length=or_null(WHOLE),
    sha=or_null(TEXT),
    dtype=or_null(TEXT),
    embeddings_path=or_null(TEXT),
    task=or_null(TEXT),
    model=or_null(TEXT),
    models=list_of(TEXT),
    version=or_null(TEXT),
    servers=list_of(_SERVER),
)

_MODEL = object_of(
    name=TEXT,
    names=list_of(TEXT),
    url=TEXT,
    state=TEXT,
    calls=WHOLE,
    errors=WHOLE,
    waiting_items=WHOLE,
    items_in_flight=WHOLE,
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

_REFUSED = object_of(route=TEXT, model=TEXT, has_key=TRUTH, why=TEXT, for_s=NUMBER)

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
    account_limited=NUMBER,
    upstream_limited=NUMBER,
    limited_by=TEXT,
    slots=TEXT,
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

_HINDRANCES = list_of(object_of(name=TEXT, times=WHOLE, setting=TEXT))
_SHARING = object_of(
    apart=_HINDRANCES,
    alone=_HINDRANCES,
    relayed=list_of(object_of(path=TEXT, times=WHOLE)),
)

_UPSTREAM_LISTED = object_of(
    address=TEXT,
    model=TEXT,
    state=TEXT,
    why=TEXT,
    takes_part=TRUTH,
    requests_in_flight=WHOLE,
    inputs_in_flight=WHOLE,
)

UPSTREAMS = object_of(upstreams=list_of(_UPSTREAM_LISTED))
ONE_UPSTREAM = object_of(
    address=TEXT,
    is_drained=TRUTH,
    requests_in_flight=WHOLE,
    inputs_in_flight=WHOLE,
    upstreams=list_of(_UPSTREAM_LISTED),
)

STATUS = object_of(
    version=TEXT,
    now=NUMBER,
    started_at=NUMBER,
    upstream=_UPSTREAM,
    flow=map_of({"type": ["number", "boolean"]}),
    kept_by=TEXT,
    lanes=list_of(_LANE),
    refused=list_of(_REFUSED),
    sharing=_SHARING,
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

# Where there are several models.
STATUS["properties"] |= {"model": TEXT, "models": list_of(_MODEL)}
