"""The one file that knows GPIO: a contact between a pin and ground, through gpiozero (on a Pi: from apt)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable


def contact(pin: int) -> Callable[[], bool]:
    """Ask whether the contact between BCM `pin` (pulled up) and ground is closed.

    Raises ConfigError when there is no gpiozero or no such pin: a switch that cannot work must not look as if.
    """
    mend = "apt-get install python3-gpiozero python3-lgpio, or take kill_switch.gpio out"
    try:
        from gpiozero import DigitalInputDevice
        from gpiozero.exc import GPIOZeroError
    except ImportError as error:
        msg = f"kill_switch.gpio: gpiozero is not installed: {mend}"
        raise ConfigError(msg) from error
    try:
        device = DigitalInputDevice(pin, pull_up=True)
    except (GPIOZeroError, OSError) as error:
        msg = f"kill_switch.gpio: pin {pin} cannot be read ({error}): {mend}"
        raise ConfigError(msg) from error
    return lambda: bool(device.value)
