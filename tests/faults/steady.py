"""Nothing happens, for long: memory stays flat, descriptors constant, and little is written to the card."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.faults.kiosk import Kiosk
from tests.faults.ledger import SOAK, note

if TYPE_CHECKING:
    import subprocess

SETTLED_S = 60
"""Caches fill before this."""


def resident_kib(process: subprocess.Popen[bytes]) -> int:
    """Resident memory of a process."""
    text = Path(f"/proc/{process.pid}/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0])


def descriptors(process: subprocess.Popen[bytes]) -> int:
    """Open file descriptors of a process."""
    return len(list(Path(f"/proc/{process.pid}/fd").iterdir()))


def written(process: subprocess.Popen[bytes]) -> int:
    """Bytes this process caused to be sent to storage, as the kernel counts them; a tmpfs is none."""
    text = Path(f"/proc/{process.pid}/io").read_text()
    return int(text.split("\nwrite_bytes:")[1].split()[0])


def watch(folder: Path, bundle: Path, minutes: float) -> int:
    """Watch both services for `minutes`, five windows a second, and note it; returns what is bad (0: nothing)."""
    with Kiosk(folder, bundle) as kiosk:
        services = {"vision": kiosk.vision, "publisher": kiosk.publisher}
        time.sleep(min(SETTLED_S, 20 * minutes))
        before = {name: (resident_kib(p), descriptors(p)) for name, p in services.items() if p is not None}
        end = time.monotonic() + 60 * minutes
        while time.monotonic() < end:
            time.sleep(1)
        after = {name: (resident_kib(p), descriptors(p)) for name, p in services.items() if p is not None}
        reckoning = kiosk.reckon()
    figures: dict[str, float] = {}
    for name in services:
        figures |= {
            f"{name}_mib": round(after[name][0] / 1024, 1),
            f"{name}_grown_kib": after[name][0] - before[name][0],
            f"{name}_descriptors_more": after[name][1] - before[name][1],
        }
    note(SOAK, {"steady_minutes": round(minutes)}, 60 * minutes, committed=reckoning.committed, **figures)
    return reckoning.bad + sum(abs(after[name][1] - before[name][1]) for name in services)
