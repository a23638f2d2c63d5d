"""What the status page and the metrics show: one immutable picture, taken by the publisher's thread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from edge import __version__
from edge.contract import Counts, utc_text
from edge.publisher.health import health, runs
from edge.types import CELLS, EMOTIONS, ROUTES

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import date, datetime

    from edge.contract import Health, Topics
    from edge.outbox.outbox import Outbox
    from edge.outbox.rows import Key, OutboxStats, Row
    from edge.outbox.runtime_files import VisionFile
    from edge.process.clock import Clock, ClockError
    from edge.publisher.delivery_stats import Delivery, Told

DAY_S: Final = 86400.0


@dataclass(frozen=True, slots=True)
class Released:
    """Sums of what was released in the windows of one UTC day: no more than the broker was sent."""

    day: date
    windows: int
    cells: dict[str, int | None]
    """None: nothing of that class was released, which includes none."""

    @property
    def classified(self) -> int:
        """Released visitors of the seven classes; `uncertain` is none."""
        return sum(self.cells[name] or 0 for name in EMOTIONS)

    @property
    def index(self) -> float | None:
        """Happy of classified, None without any."""
        n = self.classified
        return min(1.0, max(0.0, (self.cells["happy"] or 0) / n)) if n > 0 else None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Nothing in it scales with the number of faces, but for what was released."""

    at: datetime
    topics: Topics
    figures: VisionFile | None
    running: bool
    health: Health | None
    stats: OutboxStats | None
    trouble: str | None
    """Why the outbox cannot be used, in a word."""
    delivery: Told
    clock_error: ClockError | None
    latest: Counts | None
    today: Released | None

    def json(self) -> dict[str, Any]:
        """For the page: the `health` payload, the last released window and the day's sums as they were published."""
        latest, today = self.latest, self.today
        return {
            "at": utc_text(self.at),
            "site": self.topics.site,
            "device": self.topics.device,
            "version": __version__,
            "running": self.running,
            "health": self.health and self.health.model_dump(mode="json"),
            "outbox": self.stats and {"unsent": self.stats.unsent, "oldest_s": self.stats.oldest_s},
            "trouble": self.trouble,
            "connected": self.delivery.connected,
            "last_publish": self.delivery.last_taken and utc_text(self.delivery.last_taken),
            "latest": latest and latest.model_dump(mode="json", by_alias=True),
            "today": today
            and {
                "day": today.day.isoformat(),
                "windows": today.windows,
                "cells": today.cells,
                "classified": today.classified,
                "index": today.index,
            },
        }


class Photographer:
    """Takes snapshots. Rows are read anew only when another one has been released."""

    def __init__(self, topics: Topics, clock: Clock, message: Callable[[Outbox, Row], Counts | None]) -> None:
        self._topics, self._clock, self._message = topics, clock, message
        self._seen: tuple[Key, date] | None = None
        self._latest: Counts | None = None
        self._today: Released | None = None

    def take(
        self,
        outbox: Outbox | None,
        figures: VisionFile | None,
        delivery: Delivery,
        *,
        connected: bool,
        clock_error: ClockError | None,
        certificate_days: float | None,
        trouble: str | None = None,
    ) -> Snapshot:
        """Read what there is. Raises StorageError."""
        stats = outbox.stats() if outbox is not None else None
        if outbox is not None:
            self._read(outbox)
        return Snapshot(
            at=self._clock.utcnow(),
            topics=self._topics,
            figures=figures,
            running=runs(figures, self._clock.monotonic()),
            health=health(figures, stats, self._clock, certificate_days) if figures and stats else None,
            stats=stats,
            trouble=trouble or (figures.trouble if figures else None),
            delivery=delivery.told(connected=connected),
            clock_error=clock_error,
            latest=self._latest,
            today=self._today,
        )

    def _read(self, outbox: Outbox) -> None:
        last, day = outbox.last_released(), self._clock.utcnow().date()
        if last is None or self._seen == (last.key, day):
            return
        self._seen = last.key, day
        self._latest = self._message(outbox, last)
        cells: dict[str, int | None] = dict.fromkeys(CELLS)
        windows = 0
        for row in outbox.released_since(last.committed - DAY_S):
            message = self._message(outbox, row)
            if message is None or message.window.start.date() != day or message.window.time_quality == "unsynced":
                continue
            windows += 1
            for route in ROUTES:
                for name, value in message.counts.table()[route].items():
                    if value is not None:
                        cells[name] = (cells[name] or 0) + value
        self._today = Released(day, windows, cells)
