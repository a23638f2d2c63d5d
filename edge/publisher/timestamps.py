"""A row's payload and the label on it. Windows of a clock that is not set wait here for it."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from edge.contract import EARLIEST, ContractError, Counts, Topics, counts_payload
from edge.process.logs import event

if TYPE_CHECKING:
    from datetime import datetime

    from edge.outbox.outbox import Outbox
    from edge.outbox.rows import Row
    from edge.process.clock import Clock
    from edge.types import TimeQuality

log = logging.getLogger("edge.publisher")

LOOK_S: Final = 5.0


class Labels:
    """Decides, once for each row, which start and time quality it is sent with. `hold` in seconds."""

    def __init__(self, topics: Topics, clock: Clock, hold: float) -> None:
        self._topics, self._clock, self._hold = topics, clock, hold
        self._look_at = 0.0
        self._foreign: str | None = None
        self.waiting = True
        """Whether rows still wait for the clock; a drain sends them as they are."""

    def settle(self, outbox: Outbox) -> None:
        """Label the rows that waited, once the clock is set, whether or not there is a broker. Call it often."""
        now = self._clock.monotonic()
        if now < self._look_at or self._hold <= 0 or self._clock.time_quality() != "synced":
            return
        self._look_at = now + LOOK_S
        for row in outbox.unlabelled(now - self._hold):
            self.message(outbox, row)

    def message(self, outbox: Outbox, row: Row) -> Counts | None:
        """The row's payload; None while it waits (for the clock; for its own name), and for good when unsendable."""
        if not self._own(outbox):
            return None
        try:
            report, label = row.report(), row.label
            if report.time_quality == "unsynced" and label is None:
                label = self._decide(row, report.mono_start, report.start)
                if label is None:
                    return None
                outbox.label(row.key, *label)
            start, quality = label or (report.start, report.time_quality)
            return counts_payload(
                report,
                site=self._topics.site,
                device=self._topics.device,
                boot_id=row.boot_id,
                seq=row.seq,
                prev=row.prev,
                start=start,
                time_quality=quality,
            )
        except (ValueError, OverflowError, ContractError) as error:
            log.error(event("row-unsendable", boot_id=row.boot_id, seq=row.seq, why=error, next="kept aside"))
            outbox.refuse([row.key])
            return None

    def _own(self, outbox: Outbox) -> bool:
        """Whether its windows were counted under our names: under others they would be counted once more."""
        owner = outbox.owner
        if owner in {None, f"{self._topics.site}/{self._topics.device}"}:
            self._foreign = None
            return True
        if owner != self._foreign:
            next_ = "restart both services: `edge vision` puts another's outbox aside"
            log.error(event("outbox-foreign", of=owner, why="site or id is another now", next=next_))
        self._foreign = owner
        return False

    def _decide(self, row: Row, mono_start: float, start: datetime) -> tuple[datetime, TimeQuality] | None:
        """Label an unsynced window: by the clock if it is set in time, as it is if not; None: not yet."""
        if self._hold <= 0 or row.kernel_boot_id != self._clock.kernel_boot_id:
            return start, "unsynced"
        now = self._clock.monotonic()
        if now - row.committed_mono <= self._hold:
            began = self._clock.utcnow() - timedelta(seconds=now - mono_start)
            if self._clock.time_quality() == "synced" and began >= EARLIEST:  # before, its server is wrong by years
                return began, "synced"
            if self.waiting:
                return None
        return start, "unsynced"
