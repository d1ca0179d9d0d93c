"""
HTTP on private sockets, by which supervisor and workers get each other's pages.

The sockets are in a folder that no other user may enter.  An address is the
name of a socket: `http://supervisor/metrics`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from tempfile import gettempdir
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint, quoteStringArgument
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.web.client import URI, Agent
from twisted.web.iweb import IAgent, IAgentEndpointFactory
from zope.interface import implementer

from abproxy.errors import SettingsError
from abproxy.http.failures import as_proxy_failure, timed_out
from abproxy.http.messages import HeaderList, Response, Send, UpstreamRequest
from abproxy.upstream.connections import make_pool
from abproxy.upstream.treq_client import TreqClient, make_treq
from abproxy.web.listen import Listener, make_listener

__all__ = [
    "COUNTS",
    "SUPERVISOR",
    "TURN",
    "agent_by_name",
    "agent_in_folder",
    "explain_folder_errors",
    "get_page",
    "listen_in_folder",
    "make_send",
    "new_folder_name",
    "remove_folder",
]

SUPERVISOR, COUNTS, TURN = "supervisor", "connections", "turn"
"""Files in the folder, besides a socket for each worker, which has its name."""

MOST_BYTES = 64 << 20
"""The largest page."""


def new_folder_name() -> Path:
    """
    Return the path of a folder that is not there yet.

    It is made later, as the user may change when the process is started.

    Raises:
        SettingsError: there is no place for it.
    """
    with explain_folder_errors():
        return Path(gettempdir()) / f"abproxy-{token_hex(8)}"


@contextmanager
def explain_folder_errors() -> Iterator[None]:
    """
    Add what to do if the folder, or a socket in it, cannot be had.

    Raises:
        SettingsError: instead of an OSError.
    """
    try:
        yield
    except (OSError, SettingsError) as error:
        why = f"WORKERS needs a folder for sockets: {error}"
        raise SettingsError(
            f"{why}; set TMPDIR to one that can be written and has a short path"
        ) from error


def remove_folder(folder: Path) -> None:
    """Leave a *folder* whose supervisor has died; the last worker removes it."""
    for name in (SUPERVISOR, COUNTS, TURN):
        (folder / name).unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()


def listen_in_folder(reactor: Any, folder: Path, name: str) -> Listener:
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


@implementer(IAgentEndpointFactory)
@frozen
class _ByName:
    endpoint_for: Callable[[str], IStreamClientEndpoint]

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:  # noqa: N802
        return self.endpoint_for(uri.host.decode())


def agent_by_name(
    reactor: Any, endpoint_for: Callable[[str], IStreamClientEndpoint]
) -> IAgent:
    """Return an agent that connects by host name, and keeps no connection."""
    pool = make_pool(reactor, 0)
    # An open connection would hold up a process that drains.
    pool.persistent = False
    agent: IAgent = Agent.usingEndpointFactory(reactor, _ByName(endpoint_for), pool)
    return agent


def agent_in_folder(reactor: Any, folder: Path) -> IAgent:
    """Return an agent that reaches the sockets in *folder*, and nothing else."""
    return agent_by_name(
        reactor, lambda name: UNIXClientEndpoint(reactor, str(folder / name))
    )


def make_send(reactor: Any, agent: IAgent, name: str, timeout_s: float) -> Send:
    """Return what sends requests to the process with this *name*."""
    client = TreqClient(
        http=make_treq(agent), base_url=f"http://{name}", max_answer_bytes=MOST_BYTES
    )

    def send(request: UpstreamRequest) -> Deferred[Response]:
        sent = client.send(request).addErrback(as_proxy_failure)
        return sent.addTimeout(timeout_s, reactor, timed_out)

    return send


def get_page(
    path: bytes, headers: HeaderList = (), method: bytes = b"GET"
) -> UpstreamRequest:
    """Return a request for a page."""
    return UpstreamRequest(method=method, path=path, headers=headers, body=b"")
