"""Nothing happens, for long: memory stays flat, descriptors constant, and little is written to the card."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from tests.faults.card import inserted
from tests.faults.kiosk import Kiosk
from tests.faults.ledger import SOAK, note

if TYPE_CHECKING:
    import subprocess

SETTLED_S = 60
"""Caches fill before this."""
GROWTH_KIB = 4096
"""More than this in all is memory that does not stay flat: a year of windows an hour passes in half an hour."""
A_DAY = 24
"""Windows of an hour."""
BUDGET_MB = 50
"""Written to the card in a day."""


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
    with inserted(folder) as card, Kiosk(folder, bundle, storage=card.mounted) as kiosk:
        assert kiosk.vision is not None
        assert kiosk.publisher is not None
        services = {"vision": kiosk.vision, "publisher": kiosk.publisher}

        def look() -> tuple[int, int, dict[str, tuple[int, int]]]:
            sizes = {name: (resident_kib(p), descriptors(p)) for name, p in services.items()}
            return len(kiosk.acknowledged()), card.written(), sizes

        time.sleep(min(SETTLED_S, 20 * minutes))
        windows, written, before = look()
        time.sleep(60 * minutes)
        more_windows, more_written, after = look()
        reckoning = kiosk.reckon()
    a_window = (more_written - written) / (more_windows - windows)
    figures: dict[str, float] = {}
    for name in services:
        figures |= {
            f"{name}_mib": round(after[name][0] / 1024, 1),
            f"{name}_grown_kib": after[name][0] - before[name][0],
            f"{name}_descriptors_more": after[name][1] - before[name][1],
        }
    note(
        SOAK,
        {"steady_minutes": round(minutes)},
        60 * minutes,
        windows=more_windows - windows,
        card_bytes_a_window=round(a_window),
        card_megabytes_a_day=round(a_window * A_DAY / 1e6, 2),
        **asdict(reckoning),
        **figures,
    )
    return (
        reckoning.bad
        + sum(abs(figures[f"{name}_descriptors_more"]) > 1 for name in services)
        + sum(figures[f"{name}_grown_kib"] > GROWTH_KIB for name in services)
        + (a_window * A_DAY / 1e6 > BUDGET_MB)
    )
