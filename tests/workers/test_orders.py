"""A worker's line to its foreman."""

import signal

import pytest

from abproxy.settings import Settings
from abproxy.workers.orders import END, ControlChannel, read_settings, write_settings


@pytest.fixture
def heard() -> list[str]:
    """Keep what a worker makes of its orders."""
    return []


@pytest.fixture
def orders(heard: list[str]) -> ControlChannel:
    """Make the line, with a service that listens."""
    orders = ControlChannel(Settings())
    orders.on_hangup(lambda: heard.append("reload"), lambda: heard.append("gone"))
    orders.on(signal.SIGTERM, lambda: heard.append("end"))
    return orders


@pytest.mark.parametrize(
    "settings",
    [
        Settings(),
        Settings(
            api_keys=("a", "ü"),
            upstream_key="k",
            rate_limit=0.5,
            slots=3,
            packing=False,
        ),
    ],
)
def test_settings_arrive_as_they_were_sent(settings: Settings) -> None:
    """In one line."""
    line = write_settings(settings)

    assert b"\n" not in line
    assert read_settings(line) == settings


def test_new_settings_are_a_reason_to_read_them(
    orders: ControlChannel, heard: list[str]
) -> None:
    """As SIGHUP would be."""
    orders.lineReceived(write_settings(Settings(slots=3)))

    assert orders.settings == Settings(slots=3)
    assert heard == ["reload"]


def test_each_word_is_passed_on(orders: ControlChannel, heard: list[str]) -> None:
    """What a second one means the service knows."""
    orders.lineReceived(END)
    orders.lineReceived(END)

    assert heard == ["end", "end"]


def test_without_a_foreman_a_worker_ends(
    orders: ControlChannel, heard: list[str]
) -> None:
    """Nobody would ever tell it to."""
    orders.connectionLost()

    assert heard == ["end"]
    assert orders.is_alone


def test_a_foreman_that_leaves_after_its_word_is_in_no_hurry(
    orders: ControlChannel, heard: list[str]
) -> None:
    """Calls that were accepted are still answered."""
    orders.lineReceived(END)

    orders.connectionLost()

    assert heard == ["end"]


def test_a_worker_that_retires_is_not_in_a_hurry_when_all_end(
    orders: ControlChannel, heard: list[str]
) -> None:
    """A supervisor may tell every process of a group, and the foreman as well."""
    orders.retire()
    orders.retire()

    orders.lineReceived(END)

    assert heard == ["end"]


def test_after_that_a_second_wish_counts(
    orders: ControlChannel, heard: list[str]
) -> None:
    """Somebody is in a hurry now."""
    orders.retire()
    orders.lineReceived(END)

    orders.lineReceived(END)

    assert heard == ["end", "end"]


def test_a_worker_that_is_told_to_end_does_not_retire(
    orders: ControlChannel, heard: list[str]
) -> None:
    """It ends already."""
    orders.lineReceived(END)

    orders.retire()

    assert heard == ["end"]


def test_when_the_service_has_stopped_nobody_listens(
    orders: ControlChannel, heard: list[str]
) -> None:
    """The line itself may break later."""
    orders.restore()

    orders.connectionLost()

    assert heard == []
    assert not orders.is_alone
