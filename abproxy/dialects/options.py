"""Equal options are equal bytes, so that a lane can be found by comparing them."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import msgspec

__all__ = ["spell_options"]


@cache
def _defaults(body: type[msgspec.Struct]) -> tuple[tuple[str, Any], ...]:
    fields = msgspec.structs.fields(body)
    return tuple((each.name, each.default) for each in fields if not each.required)


def _spell(known: msgspec.Struct, members: dict[str, bytes]) -> Iterator[bytes]:
    for name, default in _defaults(type(known)):
        value = getattr(known, name)
        if value != default:
            yield b',"%b":%b' % (name.encode(), msgspec.json.encode(value))
    for name in sorted(members.keys() - known.__struct_fields__):
        yield b',"%b":%b' % (name.encode(), members[name])


def spell_options(known: msgspec.Struct, members: dict[str, bytes]) -> bytes:
    """
    Write every member but the required one, which holds the items.

    Known members are written by value, and left out where they have their
    default: to the upstream absent, null and the default are one.  Unknown
    members keep the client's bytes, in the order of their names.
    """
    return b"".join(_spell(known, members))
