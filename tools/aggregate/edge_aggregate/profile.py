"""The week of a place: what was released in each hour of each weekday, by its own clock.

A cell is released when it has grown, so that an hour holds some of what was counted in the hours before it. Over four
weeks and more that evens out; less is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edge.errors import ConfigError
from edge_aggregate.decode import UNSYNCED, instant
from edge_aggregate.statistics.parts import CLASSES, HAPPY
from edge_aggregate.store.days import DAY_MS
from edge_aggregate.store.merge import kept_from
from edge_aggregate.store.schema import CELL_COLUMNS
from edge_aggregate.sums import unheard_of

if TYPE_CHECKING:
    from datetime import tzinfo

    from edge_aggregate.periods import Period
    from edge_aggregate.store import Store

LEAST_DAYS: Final = 28
_LEAST_MS: Final = LEAST_DAYS * DAY_MS - 3_600_000
"""Of local days, where the clocks are put forward in them."""


@dataclass(frozen=True, slots=True)
class Hour:
    """An hour of the week: `weekday` from 0 for Monday, `hour` by the local clock; windows that began in it."""

    weekday: int
    hour: int
    happy: int
    n: int
    windows: int

    @property
    def index(self) -> float | None:
        """The share as read; None where n ≤ 0."""
        return self.happy / self.n if self.n > 0 else None


def week(store: Store, site: str, period: Period, place: tzinfo) -> list[Hour]:
    """All 168 hours, from Monday 0:00.

    Raises ConfigError for a period under 28 days, one whose windows were dropped, or a site nobody heard of.
    """
    if period.end_ms - period.start_ms < _LEAST_MS:
        msg = (
            f"an hour of the week needs {LEAST_DAYS} days, as in --last {LEAST_DAYS}d: with less, it shows when cells "
            "were released"
        )
        raise ConfigError(msg)
    if period.start_ms < (kept_ms := kept_from(store.engine)):
        msg = (
            f"the windows before {instant(kept_ms).date()} were dropped (`retain`): ask for the hours of weeks after it"
        )
        raise ConfigError(msg)
    known = {name for (name,) in store.engine.fetch("SELECT name FROM sites")}
    if site not in known:
        raise unheard_of(site, known)
    happy = " + ".join(f"COALESCE(w.{CELL_COLUMNS[place]}, 0)" for place in HAPPY)
    classes = " + ".join(f"COALESCE(w.{CELL_COLUMNS[place]}, 0)" for place in CLASSES)
    sums = [[0, 0, 0] for _ in range(7 * 24)]
    for start_ms, h, n in store.engine.fetch(
        f"SELECT w.start_ms, {happy}, {classes} FROM windows w JOIN sites s ON s.id = w.site"
        " WHERE s.name = ? AND w.start_ms >= ? AND w.start_ms < ? AND w.quality <> ?",
        (site, period.start_ms, period.end_ms, UNSYNCED),
    ):
        local = instant(start_ms).astimezone(place)
        hour = sums[local.weekday() * 24 + local.hour]
        hour[0] += h
        hour[1] += n
        hour[2] += 1
    return [Hour(*divmod(at, 24), *hour) for at, hour in enumerate(sums)]
