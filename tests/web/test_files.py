"""How many files may be open: every connection is one, on either side."""

from attrs import define
from twisted.logger import LogLevel, capturedLogs

from abproxy.web.listen import SPARE_FILES, raise_connection_limit


@define
class _System:
    """An operating system with a soft and a hard limit."""

    soft: int
    hard: int
    is_stubborn: bool = False

    RLIMIT_NOFILE = 7
    RLIM_INFINITY = -1

    def getrlimit(self, which: int) -> tuple[int, int]:
        assert which == self.RLIMIT_NOFILE
        return self.soft, self.hard

    def setrlimit(self, which: int, limits: tuple[int, int]) -> None:
        assert which == self.RLIMIT_NOFILE
        if self.is_stubborn:
            raise ValueError("not allowed to raise maximum limit")
        self.soft, self.hard = limits


def test_as_many_files_are_asked_for_as_connections_need() -> None:
    """A client's connection, and one upstream for it."""
    system = _System(soft=1024, hard=1_000_000)

    assert raise_connection_limit(10_000, system) == 10_000
    assert (system.soft, system.hard) == (20_000 + SPARE_FILES, 1_000_000)


def test_a_system_without_a_hard_limit_is_asked_too() -> None:
    """What is not limited can be had."""
    system = _System(soft=1024, hard=_System.RLIM_INFINITY)

    assert raise_connection_limit(10_000, system) == 10_000
    assert system.soft == 20_000 + SPARE_FILES


def test_nothing_is_asked_for_where_there_is_enough() -> None:
    """A limit is never made lower."""
    systems = [
        _System(soft=50_000, hard=50_000),
        _System(soft=_System.RLIM_INFINITY, hard=_System.RLIM_INFINITY),
    ]

    assert [raise_connection_limit(10_000, system) for system in systems] == [
        10_000
    ] * 2
    assert [system.soft for system in systems] == [50_000, _System.RLIM_INFINITY]


def test_fewer_are_let_in_where_files_are_few() -> None:
    """Some are kept for the upstream, and the operator is told."""
    system = _System(soft=1024, hard=4096)

    with capturedLogs() as logged:
        room = raise_connection_limit(10_000, system)

    assert room == (4096 - SPARE_FILES) // 2
    assert [event["files"] for event in logged] == [4096]


def test_what_was_not_asked_for_is_no_warning() -> None:
    """Who has set no MAX_CONNECTIONS has nothing to mend."""
    system = _System(soft=1024, hard=4096)

    with capturedLogs() as logged:
        raise_connection_limit(10_000, system, is_default=True)
        raise_connection_limit(10_000, system)

    assert [event["log_level"] for event in logged] == [LogLevel.info, LogLevel.warn]


def test_a_system_that_gives_no_more_is_believed() -> None:
    """Not all systems allow what they say."""
    system = _System(soft=1024, hard=1_000_000, is_stubborn=True)

    assert raise_connection_limit(10_000, system) == (1024 - SPARE_FILES) // 2
