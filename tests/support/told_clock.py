"""A clock that is told the time, by a file, so that several processes can share it and be surprised together."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from typing import TYPE_CHECKING, cast

from edge.process.clock import SystemClock

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from edge.types import TimeQuality


class ToldClock(SystemClock):
    """The real clock, shifted by what the file says; `tell` writes it."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self._file = file

    def tell(self, quality: TimeQuality, *, shift: timedelta = timedelta(0), passed: timedelta = timedelta(0)) -> None:
        """From now on: `quality`, the wall clock wrong by `shift`, and `passed` gone by on both clocks."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(json.dumps([quality, shift.total_seconds(), passed.total_seconds()]))
        fresh.replace(self._file)

    def _told(self) -> tuple[str, float, float]:
        return cast("tuple[str, float, float]", tuple(json.loads(self._file.read_text())))

    def monotonic(self) -> float:
        """Seconds."""
        return time.monotonic() + self._told()[2]

    def utcnow(self) -> datetime:
        """UTC, or what is taken for it."""
        _, shift, passed = self._told()
        return super().utcnow() + timedelta(seconds=shift + passed)

    def time_quality(self) -> TimeQuality:
        """As told."""
        return cast("TimeQuality", self._told()[0])
