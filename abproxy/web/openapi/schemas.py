"""The words that descriptions are made of."""

from typing import Any

__all__ = [
    "NUMBER",
    "OPENAI_ERROR",
    "TEI_ERROR",
    "TEXT",
    "WHOLE",
    "Schema",
    "json_of",
    "list_of",
    "object_of",
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


TEXT: Schema = {"type": "string"}
WHOLE: Schema = {"type": "integer"}
NUMBER: Schema = {"type": "number"}
TEI_ERROR = object_of(error=TEXT, error_type=TEXT)
OPENAI_ERROR = object_of(message=TEXT, code=WHOLE, type=TEXT)


def json_of(schema: Schema, **more: Any) -> Schema:
    """Describe a body that is JSON."""
    return {"application/json": {"schema": schema, **more}}
