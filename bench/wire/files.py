"""How many connections a process may have: a thousand clients need more than usual."""

import resource

__all__ = ["allow_many_files"]


def allow_many_files() -> None:
    """Allow this process, and those it starts, as many files as it may."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
