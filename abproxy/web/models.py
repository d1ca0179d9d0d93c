"""
The models that are served, and which of them a request is for.

A path names one, `/models/NAME/embed`, or else the `model` of a JSON body, as in the
OpenAI API.  What names none is for the default.  Where there is only one model no
request needs to name it, and none is looked at for it.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

import msgspec
from attrs import field, frozen
from msgspec.structs import replace

from abproxy.dialects.parse import NOT_JSON, read_members, write_members
from abproxy.dialects.reply import CORS
from abproxy.errors import ModelNotFound
from abproxy.http.messages import Response
from abproxy.reuse.rows import Submit
from abproxy.web.admin import json_reply
from abproxy.web.calls import CallReader
from abproxy.web.relay import Relay

__all__ = ["Models", "Served", "Way"]

READS = frozenset({b"GET", b"HEAD"})
OK = 200

PATH = b"/models/"
"""How paths begin that name a model."""


class _Named(msgspec.Struct):
    model: Any = None


_OBJECT = re.compile(rb"(?:\xef\xbb\xbf)?[ \t\r\n]*\{")
_MEMBER = re.compile(rb'"model"[ \t\r\n]*:[ \t\r\n]*"([^"\\]*)"')

_decode = msgspec.json.Decoder(_Named).decode


@frozen(kw_only=True, eq=False)
class Served:
    """One model, as requests reach it."""

    name: str = ""
    """Empty for the only one."""

    created: int = 0
    """Since when it is served, in seconds since 1970."""

    known_as: str = ""
    """What its server calls it, in the place of any of its names; empty: the same."""

    reader: CallReader
    compute: Submit = field(repr=False)
    """Computes a call, or knows its rows; in the end a batch does."""

    relay: Relay


class Way(NamedTuple):
    """Which model a target leads to."""

    served: Served | None
    """None if the path names none."""

    prefix: bytes
    """What names it, at the beginning of the target."""

    target: bytes
    """The rest, which the server knows."""


@frozen(kw_only=True, eq=False)
class Models:
    """All models, at one moment."""

    default: Served
    """The one for requests that name none."""

    named: Mapping[str, Served] = field(factory=dict, repr=False)
    """All by each of their names; none if there is only one, which needs no name."""

    def by_path(self, target: bytes) -> Way:
        """
        Return the way that the path of *target* names, or one to no model.

        Raises:
            ModelNotFound: it names one that there is not.
        """
        if not self.named or not target.startswith(PATH):
            return Way(None, b"", target)
        path = target.partition(b"?")[0]
        ends = len(path)
        # A name may have slashes in it, so the longest is looked for.
        while ends > len(PATH):
            served = self.named.get(_unquote(path[len(PATH) : ends]))
            if served is not None:
                rest = target[ends:]
                if not rest.startswith(b"/"):
                    rest = b"/" + rest
                return Way(served, target[:ends], rest)
            ends = path.rfind(b"/", 0, ends)
        raise self._not_found(_unquote(path[len(PATH) :].partition(b"/")[0]))

    def by_body(self, body: bytes, way: Served | None) -> tuple[Served, bytes]:
        """
        Return the model that *body* is for, and the body as its server wants it.

        Args:
            body: JSON, or anything else.
            way: the model that the path names, which counts.

        Raises:
            ModelNotFound: it names one that there is not.
        """
        name = _model_in(body)
        served = way or self.default
        if name is None:
            return served, body
        named = self.named.get(name)
        if way is None:
            if named is None:
                raise self._not_found(name)
            served = named
        if named is served and served.known_as not in {"", name}:
            body = _rename(body, served.known_as)
        return served, body

    def describe(self, method: bytes, target: bytes) -> Response | None:
        """
        Return the list of all models, or one of them, if that is what is asked for.

        Source: `GET /v1/models` and `GET /v1/models/{model}` of the OpenAI API; `root`
        is from vLLM, which lists a model by each of its names as well.

        Raises:
            ModelNotFound: there is no such model.
        """
        listing, _, name = target.partition(b"?")[0].partition(b"/models")
        if not self.named or method not in READS or listing not in {b"", b"/v1"}:
            return None
        if name and not name.startswith(b"/"):
            return None
        if not name:
            cards = [self._card(each) for each in self.named]
            return _for_pages(json_reply(OK, {"object": "list", "data": cards}))
        known = _unquote(name.removeprefix(b"/"))
        if known in self.named:
            return _for_pages(json_reply(OK, self._card(known)))
        if not listing:
            return None  # it may be a path within a model's
        raise self._not_found(known)

    def _card(self, name: str) -> dict[str, Any]:
        served = self.named[name]
        return {
            "id": name,
            "object": "model",
            "created": served.created,
            "owned_by": "abproxy",
            "root": served.name,
        }

    def must_be_read(self, method: bytes, target: bytes) -> bool:
        """Return whether the body must be read whole to know what a request is."""
        if not self.named:
            return self.default.reader.may_be_batched(method, target)
        try:
            way = self.by_path(target)
        except ModelNotFound:
            return False
        # Without a name in the path it may be in the body, whatever the route.
        return method == b"POST" and (
            way.served is None or way.served.reader.may_be_batched(method, way.target)
        )

    def _not_found(self, name: str) -> ModelNotFound:
        known = ", ".join(self.named)
        return ModelNotFound(f"there is no model {name[:200]!r}; there are: {known}")


def _for_pages(reply: Response) -> Response:
    """Let the pages of any site read *reply*, as they may read other answers."""
    return replace(reply, headers=(*CORS, *reply.headers))


def _unquote(written: bytes) -> str:
    return unquote_to_bytes(written).decode(errors="replace")


def _model_in(body: bytes) -> str | None:
    """Return the `model` that *body* names, if it does."""
    try:
        model = _decode(body).model
    except NOT_JSON:
        return _model_in_other(body)
    return model if isinstance(model, str) else None


def _model_in_other(body: bytes) -> str | None:
    """
    Return the `model` in what is no JSON, but that servers may read as if it were.

    Those in Python take `NaN`, halves of surrogate pairs, a byte order mark and
    UTF-16.  Sent to the default, such a call would get rows of another model.
    """
    if b"\0" in body[:4]:
        body = body.decode(json.detect_encoding(body), "replace").encode()
    if not _OBJECT.match(body):
        return None
    found = _MEMBER.search(body)
    try:
        return found[1].decode() if found else None
    except UnicodeDecodeError:
        return None


def _rename(body: bytes, known_as: str) -> bytes:
    """Let *body* name its model so, unless it may be read in several ways."""
    members = read_members(body)
    if members is None:
        return body
    members["model"] = msgspec.json.encode(known_as)
    return write_members(members)
