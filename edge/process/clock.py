"""What time it is, and whether to believe it.

No network is asked: the kernel knows whether its clock is disciplined. The services' sandbox forbids them that
question (it is the system call that sets the clock, too); there `edge-clock.service` asks, as
`python -m edge.process.clock MARKER`, and a fresh marker is the answer.
"""

from __future__ import annotations

import ctypes
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from edge.process.shared_files import read_small, replace_small

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge.types import TimeQuality

_TIME_ERROR: Final = 5
_STA_UNSYNC: Final = 0x0040
_STA_NANO: Final = 0x2000
FRESH_S: Final = 150.0
"""Age up to which a marker says "synced": it is touched every minute, and a minute may be late."""
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class Clock(Protocol):
    """The three readings the services take; tests give their own."""

    kernel_boot_id: str
    """Identifies the kernel run within which `monotonic` readings can be compared."""

    def monotonic(self) -> float:
        """Seconds that never jump, comparable between processes of one kernel boot."""
        ...

    def utcnow(self) -> datetime:
        """The wall clock, UTC; may jump."""
        ...

    def time_quality(self) -> TimeQuality:
        """`synced`, `unsynced`, or `holdover`: synced earlier in this kernel boot and lost since."""
        ...


class _Timex(ctypes.Structure):
    """The head of `struct timex` (adjtimex(2)); the tail is only there to be large enough."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 256),
    )


class ClockError(NamedTuple):
    """What the kernel knows of its clock's error, in seconds: what it still slews, and the most it can be off."""

    offset_s: float
    most_s: float


def _kernel() -> tuple[bool, ClockError] | None:
    """Synced, and how well, by adjtimex(2) with no mode bit set (a mere reading); None where that is forbidden."""
    timex = _Timex()
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(timex))
    except (OSError, AttributeError):
        return None
    if state < 0:
        return None
    unit = 1e-9 if timex.status & _STA_NANO else 1e-6
    synced = state != _TIME_ERROR and not timex.status & _STA_UNSYNC
    return synced, ClockError(timex.offset * unit, timex.maxerror * 1e-6)


def kernel_says_synced() -> bool | None:
    """Whether the kernel clock is disciplined. None where it may not be asked, as in a sandbox."""
    told = _kernel()
    return None if told is None else told[0]


def clock_error(marker: Path) -> ClockError | None:
    """The error of a disciplined clock: the kernel's word, else what `edge-clock.service` left in its marker."""
    told = _kernel()
    if told is not None:
        return told[1] if told[0] else None
    try:
        return ClockError(*map(float, read_small(marker, 100).decode("ascii").split()))
    except (OSError, ValueError, TypeError):  # TypeError: not two numbers, an empty marker
        return None


def read_kernel_boot_id() -> str:
    """The kernel's boot id as 32 hex digits; a constant where /proc does not show it."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip().replace("-", "")
    except OSError:
        return "0" * 32


class SystemClock:
    """The real clock.

    `marker` is a file in the runtime folder (tmpfs, so it ends with the kernel boot) that remembers for all
    services, and through their restarts, that the clock has been synced once; where the kernel may not be
    asked, its age is the answer. `remember=False` only reads it, as whoever is no service must: a marker of
    root's nobody else could touch. `synced` is injectable.
    """

    def __init__(
        self,
        marker: Path | None = None,
        *,
        remember: bool = True,
        synced: Callable[[], bool | None] = kernel_says_synced,
    ) -> None:
        self.kernel_boot_id = read_kernel_boot_id()
        self._marker, self._remember = marker, remember
        self._synced = synced
        self._was_synced = False

    def monotonic(self) -> float:
        """Seconds of CLOCK_MONOTONIC."""
        return time.monotonic()

    def utcnow(self) -> datetime:
        """The wall clock, UTC."""
        return datetime.now(UTC)

    def time_quality(self) -> TimeQuality:
        """See `Clock.time_quality`."""
        synced = self._synced()
        age = self._marker_age()
        if synced and self._remember and not self._was_synced and self._marker is not None:
            with suppress(OSError):  # a missing runtime folder only costs the memory of other processes
                self._marker.touch()
        if synced is None:
            synced = age is not None and abs(age) < FRESH_S
        if synced:
            self._was_synced = True
            return "synced"
        return "holdover" if self._was_synced or age is not None else "unsynced"

    def _marker_age(self) -> float | None:
        """Seconds by the wall clock; None without a marker. After a step of the clock it is wrong for a minute."""
        try:
            return None if self._marker is None else time.time() - self._marker.stat().st_mtime
        except OSError:
            return None


def mark(marker: Path) -> None:
    """Make the marker anew if the clock is synced, whoever made the last, with its error: two numbers of seconds."""
    told = _kernel()
    if told is not None and told[0]:
        replace_small(marker, "{:.9f} {:.6f}".format(*told[1]).encode("ascii"), mode=0o640)


if __name__ == "__main__":
    mark(Path(sys.argv[1]))
