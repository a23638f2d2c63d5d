"""The kill switch: a file, a contact, a command; each alone closes the camera, and trouble means closed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edge.errors import ConfigError
from edge.outbox.runtime_files import COMMAND_FILE, write_command
from edge.vision.kill_switch import PauseSwitch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gpiozero.pins.mock import MockFactory


@pytest.fixture
def pins(monkeypatch: pytest.MonkeyPatch) -> Iterator[MockFactory]:
    """The library's own false pins."""
    from gpiozero import Device
    from gpiozero.pins.mock import MockFactory

    factory = MockFactory()
    monkeypatch.setattr(Device, "pin_factory", factory)
    yield factory
    factory.reset()


def test_each_cause_alone_and_the_file_outranks_a_resume(tmp_path: Path) -> None:
    file = tmp_path / "pause"
    switch = PauseSwitch(file, None, tmp_path)
    assert switch.cause() is None
    write_command(tmp_path, "pause")
    assert switch.cause() == "command"
    file.touch()
    write_command(tmp_path, "resume")
    assert switch.cause() == "file"
    file.unlink()
    assert switch.cause() is None
    (tmp_path / COMMAND_FILE).write_text("{}")
    file.symlink_to(tmp_path / "nowhere")
    assert switch.cause() == "file", "a broken command file does not hide the switch, nor a link to nothing"


def test_a_pause_counts_though_the_numbers_began_again(tmp_path: Path) -> None:
    switch = PauseSwitch(tmp_path / "pause", None, tmp_path)
    write_command(tmp_path, "resume")
    assert switch.cause() is None
    (tmp_path / COMMAND_FILE).unlink()  # as the message about a damaged one says
    assert write_command(tmp_path, "pause").number == 1
    assert switch.cause() == "command"


def test_a_file_that_cannot_be_asked_for_counts_as_there(tmp_path: Path) -> None:
    assert PauseSwitch(tmp_path / ("x" * 300), None, tmp_path).cause() == "file"
    assert PauseSwitch(tmp_path / "no folder" / "pause", None, tmp_path).cause() is None


def test_an_open_contact_or_a_cut_wire_pauses(tmp_path: Path, pins: MockFactory) -> None:
    switch = PauseSwitch(tmp_path / "pause", 17, tmp_path)
    pin = pins.pin(17)
    assert pin.pull == "up"
    assert switch.cause() == "gpio", "nothing is connected: the pull-up reads open"
    pin.drive_low()
    assert switch.cause() is None
    pin.drive_high()
    write_command(tmp_path, "resume")
    assert switch.cause() == "gpio"


def test_what_a_pin_library_raises_is_told_and_a_pin_lost_later_pauses(
    tmp_path: Path, pins: MockFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    class LgpioError(Exception):
        """As lgpio's own: neither an OSError nor gpiozero's."""

    def busy(*_: object, **__: object) -> None:
        msg = "GPIO busy"
        raise LgpioError(msg)

    switch = PauseSwitch(tmp_path / "pause", 17, tmp_path)
    pins.pin(17).drive_low()
    assert switch.cause() is None
    with monkeypatch.context() as patched:
        patched.setattr("gpiozero.DigitalInputDevice.value", property(busy))
        assert switch.cause() == "gpio"
    monkeypatch.setattr("gpiozero.DigitalInputDevice.__init__", busy)
    with pytest.raises(ConfigError, match=r"pin 18 cannot be read \(GPIO busy\)"):
        PauseSwitch(tmp_path / "pause", 18, tmp_path)


def test_a_pin_that_cannot_be_read_is_refused(tmp_path: Path, pins: MockFactory) -> None:
    with pytest.raises(ConfigError, match=r"pin 99 cannot be read .* python3-lgpio"):
        PauseSwitch(tmp_path / "pause", 99, tmp_path)
    assert pins
