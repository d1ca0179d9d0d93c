"""What is in memory at the start is put into huge pages, where the kernel can."""

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from abproxy import tuning
from abproxy.tuning import HUGE_PAGE, use_huge_pages

FILE, NO_FILE = "fe:00 5333723", "00:00 0"

Ask = Callable[[int, int, int], int]
Look = Callable[[int, int, Any], int]


def _map(begins: int, ends: int, rights: str = "rw-p", of: str = NO_FILE) -> str:
    """Write a line as Linux does: places in huge pages."""
    begins, ends = int(begins * HUGE_PAGE), int(ends * HUGE_PAGE)
    return f"{begins:x}-{ends:x} {rights} 00000000 {of} "


class Kernel:
    """Takes note of which huge pages are asked for."""

    def __init__(self, answer: int = 0, **shares: float) -> None:
        self.asked: list[int] = []
        self.answer = answer
        self.shares = shares
        """How much of some huge pages is in memory, by `at_` and their number."""

    def __call__(self, _name: None) -> "Kernel":
        return self

    @property
    def madvise(self) -> Ask:
        def ask(begins: int, size: int, advice: int) -> int:
            assert (size, advice) == (HUGE_PAGE, 25)
            self.asked.append(begins // HUGE_PAGE)
            return self.answer

        return ask

    @property
    def mincore(self) -> Look:
        def look(begins: int, size: int, pages: Any) -> int:
            assert size == HUGE_PAGE
            share = self.shares.get(f"at_{begins // HUGE_PAGE}", 1.0)
            for number in range(len(pages)):
                # Linux may set other bits than the lowest one as well.
                pages[number] = 0b11 if number < share * len(pages) else 0b10
            return 0

        return look


@pytest.fixture
def maps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in for what Linux says of the memory of this process."""
    file = tmp_path / "maps"
    monkeypatch.setattr(tuning, "_MAPS", file)
    return file


def test_only_whole_pages_of_a_mapping_are_asked_for(
    maps: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is before the first and after the last belongs to nobody, or others."""
    maps.write_text(
        "\n".join([_map(2.5, 5.25), _map(7.25, 8.75), _map(9, 10), _map(12, 14.5)])
    )
    kernel = Kernel()
    monkeypatch.setattr(ctypes, "CDLL", kernel)

    assert use_huge_pages() == 5 * HUGE_PAGE
    assert kernel.asked == [3, 4, 9, 12, 13]


def test_what_is_hardly_in_memory_is_not_made_to_be(
    maps: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the stack of a thread, of which 2 MB would come for some kilobytes."""
    maps.write_text(_map(1, 5))
    kernel = Kernel(at_1=0.0, at_2=0.97, at_3=0.9)
    monkeypatch.setattr(ctypes, "CDLL", kernel)

    assert use_huge_pages() == 2 * HUGE_PAGE
    assert kernel.asked == [2, 4]


def test_files_and_what_is_not_written_stay_as_they_are(
    maps: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stack is left alone as well; the heap of the C library is not."""
    lines = [
        _map(1, 2, of=FILE) + "/usr/lib/libpython3.11.so",
        _map(2, 3, "r-xp"),
        _map(3, 4, "rw-s"),
        _map(4, 5) + "[stack]",
        _map(6, 7) + "                         [heap]",
    ]
    maps.write_text("\n".join(lines))
    kernel = Kernel()
    monkeypatch.setattr(ctypes, "CDLL", kernel)

    use_huge_pages()

    assert kernel.asked == [6]


def test_a_kernel_that_declines_is_no_failure(
    maps: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older one does not know what it is asked for."""
    maps.write_text(_map(1, 3))
    monkeypatch.setattr(ctypes, "CDLL", Kernel(answer=-1))

    assert use_huge_pages() == 0


def test_a_system_that_tells_nothing_of_memory_is_left_alone(maps: Path) -> None:
    """It is not Linux, or has no /proc."""
    assert not maps.exists()
    assert use_huge_pages() == 0


def test_what_is_in_memory_stays_what_it_is() -> None:
    """Whatever the kernel of this machine can do."""
    written = [bytes([number]) * HUGE_PAGE for number in range(8)]

    use_huge_pages()

    assert all(
        each == bytes([number]) * HUGE_PAGE for number, each in enumerate(written)
    )
