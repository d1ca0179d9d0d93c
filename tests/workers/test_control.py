"""A worker's end of the pipes to its supervisor."""

import signal

import pytest

from abproxy.settings.settings import Settings
from abproxy.workers.control import END, ControlChannel, read_settings, write_settings


@pytest.fixture
def called() -> list[str]:
    """Keep what a worker makes of its commands."""
    return []


@pytest.fixture
def control(called: list[str]) -> ControlChannel:
    """Make a channel, with a service that listens."""
    control = ControlChannel(Settings())
    control.on_hangup(lambda: called.append("reload"), lambda: called.append("gone"))
    control.on(signal.SIGINT, lambda: called.append("end"))
    control.on(signal.SIGTERM, lambda: called.append("end after delay"))
    return control


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
    control: ControlChannel, called: list[str]
) -> None:
    """As SIGHUP would be."""
    control.lineReceived(write_settings(Settings(slots=3)))

    assert control.settings == Settings(slots=3)
    assert called == ["reload"]


def test_each_word_is_passed_on(control: ControlChannel, called: list[str]) -> None:
    """What a second one means the service knows."""
    control.lineReceived(END)
    control.lineReceived(END)

    assert called == ["end", "end"]


def test_without_a_supervisor_a_worker_ends(
    control: ControlChannel, called: list[str]
) -> None:
    """Nothing else would ever tell it to."""
    control.connectionLost()

    assert called == ["end"]
    assert control.supervisor_died


def test_a_supervisor_that_leaves_after_its_word_is_in_no_hurry(
    control: ControlChannel, called: list[str]
) -> None:
    """Calls that were accepted are still answered."""
    control.lineReceived(END)

    control.connectionLost()

    assert called == ["end"]


def test_a_worker_that_retires_is_not_in_a_hurry_when_all_end(
    control: ControlChannel, called: list[str]
) -> None:
    """An init system may tell every process of a group, the supervisor among them."""
    control.retire()
    control.retire()

    control.lineReceived(END)

    assert called == ["end"]


def test_after_that_a_second_wish_counts(
    control: ControlChannel, called: list[str]
) -> None:
    """Now it is a hurry."""
    control.retire()
    control.lineReceived(END)

    control.lineReceived(END)

    assert called == ["end", "end"]


def test_a_worker_that_is_told_to_end_does_not_retire(
    control: ControlChannel, called: list[str]
) -> None:
    """It ends already."""
    control.lineReceived(END)

    control.retire()

    assert called == ["end"]


def test_when_the_service_has_stopped_nothing_is_called(
    control: ControlChannel, called: list[str]
) -> None:
    """The pipe itself may break later."""
    control.restore()

    control.connectionLost()

    assert called == []
    assert not control.supervisor_died
