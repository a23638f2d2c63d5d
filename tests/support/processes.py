"""Other processes, and the day on which a test falls."""

from __future__ import annotations

import time
from pathlib import Path


def alive(pid: int) -> bool:
    """Whether a process runs and is no zombie."""
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0]
    except OSError:  # gone, between the look and the reading too
        return False


def on_one_day(seconds: float = 60) -> None:
    """Wait where midnight UTC is near: what a test does in the next `seconds` falls on one day."""
    while (time.time() + seconds) % 86400 < seconds + 5:
        time.sleep(0.5)
