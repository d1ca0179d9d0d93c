"""
How foreman and workers speak of their pages: HTTP on sockets of their own.

The sockets are in a folder that nobody else may enter.  An address is the name
of a socket: `http://foreman/metrics`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from tempfile import gettempdir
from typing import Any

from attrs import frozen
from twisted.internet.endpoints import UNIXClientEndpoint, quoteStringArgument
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.web.client import URI, Agent
from twisted.web.iweb import IAgent, IAgentEndpointFactory
from zope.interface import implementer

from abproxy.http.messages import HeaderList, UpstreamRequest
from abproxy.settings import SettingsError
from abproxy.upstream.agent import make_pool, make_treq
from abproxy.upstream.client import TreqUpstream
from abproxy.web.listen import Listener, make_listener

__all__ = [
    "COUNTS",
    "FOREMAN",
    "abandon",
    "agent_in",
    "agent_to",
    "listen_in",
    "make_folder_name",
    "make_way",
    "needs_place",
    "question",
]

FOREMAN, COUNTS = "foreman", "connections"

MOST_BYTES = 64 << 20
"""The largest page."""


@implementer(IAgentEndpointFactory)
@frozen
class _ByName:
    endpoint_for: Callable[[str], IStreamClientEndpoint]

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:  # noqa: N802
        return self.endpoint_for(uri.host.decode())


def make_folder_name() -> Path:
    """
    Name a folder that is not there yet: who we are when we start is not settled.

    Raises:
        SettingsError: there is no place for it.
    """
    with needs_place():
        return Path(gettempdir()) / f"abproxy-{token_hex(8)}"


@contextmanager
def needs_place() -> Iterator[None]:
    """Say what to do if the folder, or a socket in it, cannot be had."""
    try:
        yield
    except (OSError, SettingsError) as error:
        why = f"WORKERS needs a folder for sockets: {error}"
        raise SettingsError(
            f"{why}; set TMPDIR to one that can be written and has a short path"
        ) from error


def abandon(folder: Path) -> None:
    """Leave a *folder* whose foreman has died; the last one out takes it away."""
    for name in (FOREMAN, COUNTS):
        (folder / name).unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()


def listen_in(reactor: Any, folder: Path, name: str) -> Listener:
    """
    Listen under a *name* in *folder*.

    Raises:
        SettingsError: that cannot be done.
    """
    file = folder / name
    # One that was killed has left its own.
    file.unlink(missing_ok=True)
    path = quoteStringArgument(str(file))
    return make_listener(reactor, "", f"unix:{path}:mode=600:lockfile=0")


def agent_in(reactor: Any, folder: Path) -> IAgent:
    """Make an agent that reaches the sockets in *folder*, and nothing else."""
    return agent_to(
        reactor, lambda name: UNIXClientEndpoint(reactor, str(folder / name))
    )


def agent_to(
    reactor: Any, endpoint_for: Callable[[str], IStreamClientEndpoint]
) -> IAgent:
    """Make an agent that goes where a host's name leads, and keeps no connection."""
    pool = make_pool(reactor, 0)
    # One that is kept would keep whoever drains.
    pool.persistent = False
    agent: IAgent = Agent.usingEndpointFactory(reactor, _ByName(endpoint_for), pool)
    return agent


def make_way(reactor: Any, agent: IAgent, name: str, timeout_s: float) -> TreqUpstream:
    """Make the way to whoever has this *name*."""
    return TreqUpstream(
        http=make_treq(agent),
        base_url=f"http://{name}",
        clock=reactor,
        timeout_s=timeout_s,
        max_answer_bytes=MOST_BYTES,
    )


def question(path: bytes, headers: HeaderList = ()) -> UpstreamRequest:
    """Ask for a page."""
    return UpstreamRequest(method=b"GET", path=path, headers=headers, body=b"")
