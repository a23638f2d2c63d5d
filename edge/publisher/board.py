"""The board: its temperature, and what it says of its supply; None where the kernel shows no such file."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

SYSFS: Final = Path("/sys")


class Power(NamedTuple):
    """Bits 0, 2 and 16 of the firmware's `get_throttled`.

    Meaning: https://www.raspberrypi.com/documentation/computers/os.html#get_throttled.
    """

    under_voltage: bool
    throttled: bool
    under_voltage_before: bool
    """Since the kernel started."""


def soc_celsius(sysfs: Path = SYSFS) -> float | None:
    """Temperature of the SoC in °C."""
    try:
        return round(int((sysfs / "class/thermal/thermal_zone0/temp").read_text(encoding="ascii")) / 1000, 1)
    except (OSError, ValueError):
        return None


def power(sysfs: Path = SYSFS) -> Power | None:
    """State of the supply of a Raspberry Pi, by its firmware, else by the kernel's `rpi_volt` sensor."""
    try:
        for file in sysfs.glob("devices/platform/soc*/soc*:firmware/get_throttled"):
            bits = int(file.read_text(encoding="ascii"), 16)
            return Power(bool(bits & 1), bool(bits & 4), bool(bits & 1 << 16))
        for file in sysfs.glob("class/hwmon/hwmon*/name"):
            if file.read_text(encoding="ascii").strip() == "rpi_volt":
                low = (file.parent / "in0_lcrit_alarm").read_text(encoding="ascii").strip() == "1"
                return Power(low, throttled=False, under_voltage_before=low)
    except (OSError, ValueError):
        pass
    return None
