"""The one file that knows GPIO: a contact between a pin and ground, through gpiozero (on a Pi: from apt)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable


def contact(pin: int) -> Callable[[], bool]:
    """Ask whether the contact between BCM `pin` (pulled up) and ground is closed.

    Raises ConfigError when there is no gpiozero or no such pin: a switch that cannot work must not look as if. What
    is returned raises OSError when the pin can no longer be read.
    """
    mend = "apt-get install python3-gpiozero python3-lgpio, or take kill_switch.gpio out"
    try:
        from gpiozero import DigitalInputDevice
    except ImportError as error:
        msg = f"kill_switch.gpio: gpiozero is not installed: {mend}"
        raise ConfigError(msg) from error
    try:
        device = DigitalInputDevice(pin, pull_up=True)
    except Exception as error:  # gpiozero lets its pin libraries' own errors through, e.g. lgpio.error: GPIO busy
        msg = f"kill_switch.gpio: pin {pin} cannot be read ({error}): {mend}"
        raise ConfigError(msg) from error

    def closed() -> bool:
        try:
            return bool(device.value)
        except Exception as error:
            msg = f"pin {pin}: {error}"
            raise OSError(msg) from error

    return closed
