"""
Is there an upstream, may calls come, and does this process live?

The upstream's own word on its health is passed on.  A server that knows no
such route is there, and more is not asked of it.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from attrs import define, field

from abproxy.batching.waiting import WaitingRoom
from abproxy.dialects.answer import CORS
from abproxy.messages import Reply
from abproxy.upstream.probe import Answer, Probe

__all__ = ["Health", "json_reply"]

OK, SERVER_ERROR, UNAVAILABLE = 200, 500, 503

NO_SUCH_ROUTE = frozenset({401, 403, 404, 405})
"""How servers answer that have no route for their health, or hide it."""

LONGEST_REASON = 200


def json_reply(status: int, value: Any) -> Reply:
    """Write *value* as a reply that nobody may keep."""
    headers = (
        (b"Content-Type", b"application/json"),
        (b"Cache-Control", b"no-store"),
    )
    body = msgspec.json.encode(value)
    return Reply(status=status, reason=b"", headers=headers, body=body)


@define(kw_only=True, eq=False)
class Health:
    """The answers for whoever watches over us."""

    probes: Mapping[bytes, Probe]
    """How to ask the upstream, for each path on which we are asked."""

    room: WaitingRoom
    is_draining: Callable[[], bool] = field(repr=False)

    def healthy(self) -> Reply:
        """Say that this process is alive: it answers."""
        return json_reply(OK, {"healthy": True})

    async def ready(self) -> Reply:
        """Say whether calls may come, or why not."""
        reasons = self._reasons(await self.probes[b"/health"].ask())
        status = UNAVAILABLE if reasons else OK
        return json_reply(status, {"ready": not reasons, "reasons": reasons})

    async def upstream(self, path: bytes) -> Reply:
        """Pass on what the upstream says on *path*, unless we are going to stop."""
        if self.is_draining():
            return _unhealthy("abproxy is going to stop")
        answer = await self.probes[path].ask()
        if not isinstance(answer, Reply):
            return _unhealthy(str(answer))
        if answer.status in NO_SUCH_ROUTE:
            return Reply(status=OK, reason=b"", headers=CORS, body=b"")
        return answer

    def _reasons(self, answer: Answer) -> list[dict[str, str]]:
        reasons = []
        if self.is_draining():
            reasons.append(_reason("draining", "abproxy is going to stop"))
        if self.room.items >= self.room.max_items:
            reasons.append(_reason("full", f"{self.room.items} inputs are waiting"))
        if not isinstance(answer, Reply):
            reasons.append(_reason("unreachable", str(answer)))
        elif answer.status >= SERVER_ERROR:
            said = answer.body[:LONGEST_REASON].decode(errors="replace")
            reasons.append(_reason("unhealthy", f"the inference server says {said}"))
        return reasons


def _reason(word: str, message: str) -> dict[str, str]:
    return {"reason": word, "message": message}


def _unhealthy(why: str) -> Reply:
    return json_reply(UNAVAILABLE, {"error": why, "error_type": "Unhealthy"})
