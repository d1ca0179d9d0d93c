"""
TEI's /embed in front of a server that has the embeddings route of the OpenAI API only.

Inputs and numbers stay the bytes that they are; only what is around them changes.
What the other route cannot be asked for is refused in the words of this one: sent
without it, the call would get other vectors than it wants.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, cast

import msgspec
from attrs import frozen

from abproxy.dialects.bounds import check_members
from abproxy.dialects.call import BadAnswer, Dialect, ParsedBody, Rows
from abproxy.dialects.members import OF_TEI, MemberRules
from abproxy.dialects.openai import OPENAI
from abproxy.dialects.parse import Options, read_members, write_members
from abproxy.dialects.split import ROW, Lengths, Order, read_object
from abproxy.dialects.tei import EMBED, EmbedBody, JSONRoute
from abproxy.errors import CannotTranslate

__all__ = ["before_openai"]


class NamedEmbedBody(EmbedBody, kw_only=True):
    model: str | None = None
    """TEI ignores it; the other server may have several."""


_UNABLE: Mapping[str, tuple[Any, ...]] = {
    "normalize": (True,),
    "prompt_name": (None,),
    "truncate": (None, True),
    "truncation_direction": ("Right",),
}
"""The values of members that the OpenAI API has no member for."""


@frozen(kw_only=True, eq=False)
class TranslatedEmbed(JSONRoute):
    """The dialect of /embed, whose requests are sent to an OpenAI route."""

    batch_path: bytes
    translates: bool = True

    model: str | None
    """What the server calls its model, for calls that name none."""

    def read(self, body: bytes, rules: MemberRules = OF_TEI) -> ParsedBody:
        """
        Parse *body* by the *rules*.

        Raises:
            CallTooLarge: it has more inputs than the *rules* allow, or more
                members than anyone needs.
            CannotTranslate: it asks for what the server cannot do, or is no call.
        """
        parsed = super().read(body, rules)
        if parsed is None:
            raise CannotTranslate(
                "the body is not understood: expected JSON with `inputs`, none of them "
                "empty, and the options of /embed"
            )
        return parsed

    def _read_options(
        self, body: bytes, raw: bytes, suffix: bytes, rules: MemberRules
    ) -> Options | None:
        check_members(suffix or body.replace(raw, b"", 1))
        members = read_members(body)
        if members is None:
            return None
        members[self.items] = b"null"
        known = cast("NamedEmbedBody", self._decode(write_members(members)))
        _refuse_what_is_unable(known)
        asked = {"model": known.model or self.model, "dimensions": known.dimensions}
        shared = [
            b',"%b":%b' % (name.encode(), msgspec.json.encode(value))
            for name, value in asked.items()
            if value is not None
        ]
        options = Options(b"".join(shared), None)
        self._suffixes.remember(rules, suffix, options)
        return options

    def batch_body(self, items: Sequence[bytes], options: bytes) -> bytes:
        """Write `{"input":[…],…}`."""
        return OPENAI.batch_body(items, options)

    def split(self, body: bytes, lengths: Lengths, order: Order = None) -> list[Rows]:
        """Split the vectors in an answer of the server, or in one of ours."""
        if body.startswith(b"["):
            return EMBED.split(body, lengths, order)
        parts = OPENAI.split(body, lengths, order)
        return [Rows(raw=[_vector(row) for row in part.raw]) for part in parts]


def _refuse_what_is_unable(known: NamedEmbedBody) -> None:
    for name, values in _UNABLE.items():
        if getattr(known, name) not in values:
            raise CannotTranslate(
                f"the inference server has the OpenAI API, which has no {name}: "
                f"leave {name} out"
            )


def _vector(row: bytes) -> bytes:
    if row.startswith(ROW + b"[") and row.endswith(b"],"):
        return row[len(ROW) : -1]
    # Its index may have been cut off.
    whole = row if row.endswith(b"}") else row.rstrip(b", \t\r\n") + b"}"
    vector = read_object(whole).get("embedding", msgspec.Raw(b""))
    if not bytes(vector).startswith(b"["):
        raise BadAnswer("an embedding that is no list of numbers")
    return bytes(vector)


@lru_cache(8)
def before_openai(path: str | None, model: str | None) -> Mapping[bytes, Dialect]:
    """
    Return the routes that are translated for a server.

    Args:
        path: where it makes embeddings; None if its routes are TEI's, or not known.
        model: what it calls its model, if it has one only.
    """
    if path is None:
        return {}
    embed = TranslatedEmbed(
        path=EMBED.path,
        items=EMBED.items,
        body=NamedEmbedBody,
        split_rows=EMBED.split_rows,
        measure=EMBED.measure,
        batch_path=path.encode(),
        model=model,
    )
    return dict.fromkeys((b"/embed", b"/", b"/invocations"), embed)
