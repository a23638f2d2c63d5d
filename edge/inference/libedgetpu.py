"""Does the installed libedgetpu fit a runtime? Its Debian package's version tells: no library is loaded that may crash.

A delegate shares structures with the runtime that loads it, and TFLite changed them in 2.12: Google's 16.0, built with
TensorFlow 2.5, crashes later runtimes (google-coral/edgetpu#812). Later builds name their TensorFlow: `16.0tf2.19.1-1`.
"""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

PACKAGES: Final = ("libedgetpu1-std", "libedgetpu1-max")
GOOGLE: Final = (2, 5)
"""TensorFlow of the builds that name none."""
CHANGED: Final = (2, 12)
"""Libraries and runtimes fit when both are older than this TFLite, or neither is."""
LITERT: Final = (2, 18)
"""TFLite from which LiteRT went on, under numbers of its own."""


def package(admindir: Path | None = None) -> tuple[str, str] | None:
    """Name and version of the installed package; None without one, or without dpkg.

    `admindir` as dpkg's option of that name, for another database than the system's.
    """
    where = [f"--admindir={admindir}"] if admindir else []
    order = ["dpkg-query", *where, "--show", "--showformat", "${db:Status-Status} ${Package} ${Version}\n", *PACKAGES]
    try:
        listed = subprocess.run(order, capture_output=True, text=True, check=False, timeout=10).stdout  # noqa: S603 - fixed words
    except (OSError, subprocess.TimeoutExpired):
        return None
    for line in listed.splitlines():
        status, _, rest = line.partition(" ")
        if status == "installed":
            name, _, version = rest.partition(" ")
            return name, version
    return None


def fits(version: str, runtime: str) -> bool | None:
    """Whether a package's version (`16.0tf2.19.1-1`) fits a runtime (`tflite 2.14.0`); None if it cannot be told."""
    named = re.search(r"tf(\d+)\.(\d+)", version)
    if named is None and not re.fullmatch(r"[\d.]+(-\d+)?", version):
        return None
    library = (int(named[1]), int(named[2])) if named else GOOGLE
    number = re.fullmatch(r"tflite (\d+)\.(\d+).*", runtime)
    if number is None and not runtime.startswith("litert"):
        return None
    taken = (int(number[1]), int(number[2])) if number else LITERT
    return (library < CHANGED) == (taken < CHANGED)
