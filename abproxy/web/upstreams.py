"""
The page by which an operator takes servers out of use, and back: `/-/upstreams`.

It asks for a key of its own, and is not there as long as none is set.  What a server
has in flight when it is drained is answered; the page says how much that still is.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from attrs import define, field
from msgspec.structs import replace
from twisted.internet.defer import DeferredLock, maybeDeferred

from abproxy.errors import Unauthorized
from abproxy.events import RequestInfo
from abproxy.http.headers import with_request_id
from abproxy.http.messages import Response
from abproxy.web.admin import UPSTREAMS, json_reply
from abproxy.web.auth import ApiKeys

__all__ = ["IN_FLIGHT", "UpstreamPages"]

Described = Mapping[str, Any]
"""What is known of a server of one model."""

OK, NOT_FOUND, NOT_ALLOWED, CONFLICT = 200, 404, 405, 409

READS = frozenset({b"GET", b"HEAD"})

ACTIONS = {"drain": True, "resume": False}
"""The last word of a path that is posted to, and whether it drains."""

IN_FLIGHT = ("requests_in_flight", "inputs_in_flight")
MEMBERS = ("address", "model", "state", "why", "takes_part", *IN_FLIGHT)


@define(kw_only=True, eq=False)
class UpstreamPages:
    """Lists the servers, drains one and takes it in again."""

    keys: Callable[[], tuple[str, ...]] = field(repr=False)
    """Return the keys of operators; without any there is no such page."""

    servers: Callable[[], Any] = field(repr=False)
    """Describe the servers of all models; may return a Deferred."""

    drain: Callable[[str, bool], Any] = field(repr=False)
    """Drain the servers at an address, or take them in; may return a Deferred."""

    spares_the_last: bool = True
    """Whether the last that takes part is never drained."""

    _lock: DeferredLock = field(init=False, factory=DeferredLock, repr=False)
    """Two that are drained at the same time might be the last two."""

    async def answer(self, request: RequestInfo) -> Response:
        """
        Answer *request*, which is for this page or one below it.

        Raises:
            Unauthorized: it has not the key that is needed.
        """
        reply = await self._answer(request)
        if reply.status == OK:
            return reply
        return with_request_id(reply, request.request_id())

    async def _answer(self, request: RequestInfo) -> Response:
        keys = self.keys()
        if not keys:
            return _error(NOT_FOUND, "this page is off: ADMIN_KEY is not set")
        if not ApiKeys(accepted=keys).recognize(request):
            raise Unauthorized
        name = unquote(request.path[len(UPSTREAMS) :].decode(errors="replace"))
        address, _, action = name.strip("/").rpartition("/")
        if request.method in READS:
            return await self._show(name.strip("/"), action)
        if request.method != b"POST" or action not in ACTIONS or not address:
            return _not_allowed()
        await self._lock.acquire()
        try:
            return await self._change(address, is_drained=ACTIONS[action])
        finally:
            self._lock.release()

    async def _show(self, address: str, action: str) -> Response:
        servers: Sequence[Described] = await maybeDeferred(self.servers)
        if not address:
            return json_reply(OK, {"upstreams": list(map(_shown, servers))})
        return _one(servers, address) or (
            _not_allowed() if action in ACTIONS else _unknown(servers, address)
        )

    async def _change(self, address: str, *, is_drained: bool) -> Response:
        servers: Sequence[Described] = await maybeDeferred(self.servers)
        known = [each for each in servers if each["address"] == address]
        if not known and is_drained:
            return _unknown(servers, address)
        if is_drained and self.spares_the_last:
            for each in known:
                if not _has_other(each, servers):
                    model = f" of {each['model']}" if each["model"] else ""
                    error = f"no other server{model} takes calls at the moment"
                    return _error(CONFLICT, error)
        await maybeDeferred(self.drain, address, is_drained)
        servers = await maybeDeferred(self.servers)
        return _one(servers, address) or _unknown(servers, address)


def _shown(server: Described) -> dict[str, Any]:
    """Return what the page says of a *server*."""
    return {name: server[name] for name in MEMBERS}


def _one(servers: Sequence[Described], address: str) -> Response | None:
    """Return what is said of all at an *address*, or None if there is none."""
    found = [_shown(each) for each in servers if each["address"] == address]
    if not found:
        return None
    return json_reply(
        OK,
        {
            "address": address,
            "is_drained": all(each["state"] == "drained" for each in found),
            **{name: sum(each[name] for each in found) for name in IN_FLIGHT},
            "upstreams": found,
        },
    )


def _has_other(server: Described, servers: Sequence[Described]) -> bool:
    """Return whether another server of its model takes calls."""
    return any(
        each["takes_part"]
        and each["address"] != server["address"]
        and each["model"] == server["model"]
        for each in servers
    )


def _unknown(servers: Sequence[Described], address: str) -> Response:
    known = ", ".join(dict.fromkeys(each["address"] for each in servers))
    return _error(NOT_FOUND, f"there is no server {address!r}; there are: {known}")


def _not_allowed() -> Response:
    error = "use GET, or POST to …/ADDRESS/drain or …/ADDRESS/resume"
    reply = _error(NOT_ALLOWED, error)
    return replace(reply, headers=(*reply.headers, (b"Allow", b"GET, POST")))


def _error(status: int, error: str) -> Response:
    kinds = {NOT_FOUND: "NotFound", CONFLICT: "Conflict", NOT_ALLOWED: "Validation"}
    return json_reply(status, {"error": error, "error_type": kinds[status]})
