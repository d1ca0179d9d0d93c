"""The words that descriptions are made of."""

from typing import Any

__all__ = [
    "NUMBER",
    "OPENAI_ERROR",
    "TEI_ERROR",
    "TEXT",
    "TRUTH",
    "WHOLE",
    "Schema",
    "json_of",
    "list_of",
    "map_of",
    "object_of",
    "or_null",
]

Schema = dict[str, Any]


def list_of(items: Schema) -> Schema:
    """Describe a list of *items*."""
    return {"type": "array", "items": items}


def object_of(**properties: Schema) -> Schema:
    """Describe an object that has all these *properties*."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
    }


def map_of(values: Schema) -> Schema:
    """Describe an object with *values* under whatever names."""
    return {"type": "object", "additionalProperties": values}


def or_null(schema: Schema) -> Schema:
    """Describe what may also be null."""
    return {"anyOf": [schema, {"type": "null"}]}


TEXT: Schema = {"type": "string"}
TRUTH: Schema = {"type": "boolean"}
WHOLE: Schema = {"type": "integer"}
NUMBER: Schema = {"type": "number"}
TEI_ERROR = object_of(error=TEXT, error_type=TEXT)
OPENAI_ERROR = object_of(message=TEXT, code=WHOLE, type=TEXT)


def json_of(schema: Schema, **more: Any) -> Schema:
    """Describe a body that is JSON."""
    return {"application/json": {"schema": schema, **more}}
