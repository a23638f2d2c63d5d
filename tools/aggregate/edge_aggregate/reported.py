"""The share of a period for which windows arrived: a kiosk that is off sends none, and coverage is silent about it.

It is reckoned for the devices that are known as in `states.py`: with windows at the site in the period, or in the 30
days before it. One that is dead all the time is missed so, and one that was taken away no longer than that.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from edge_aggregate.decode import instant
from edge_aggregate.states import PATIENCE_DAYS
from edge_aggregate.store.days import spans_summed
from edge_aggregate.store.schema import SPAN_DAYS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from edge_aggregate.figures import Figure
    from edge_aggregate.periods import Period
    from edge_aggregate.sites import Site
    from edge_aggregate.store import Store


def reported_share(milliseconds: int, devices: int, period_ms: int) -> float | None:
    """Of the time of so many devices in a period, what windows lasted: 1 at the most, as the last may end after it."""
    return min(1.0, milliseconds / (devices * period_ms)) if devices > 0 and period_ms > 0 else None


class Known:
    """The devices of each site, and how much of a period is over: read once.

    `whole`: only periods that touch all of `days` are asked for, and spans say enough.
    """

    def __init__(self, store: Store, days: range, sites: Iterable[str] | None = None, *, whole: bool = False) -> None:
        self.newest_ms = store.newest_ms
        engine = store.engine
        wanted = None if sites is None else set(sites)
        names = dict(engine.fetch("SELECT id, name FROM sites"))
        ids = [str(number) for number, name in names.items() if wanted is None or name in wanted]
        of_sites = f"site IN ({'SELECT id FROM sites' if wanted is None else ', '.join(ids) or 'NULL'})"
        since = days.start - PATIENCE_DAYS
        self._counts: dict[str, int] = {}
        self._days: dict[str, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
        if whole:
            for site, devices in engine.fetch(
                "SELECT site, COUNT(*) FROM (SELECT site, device FROM spans WHERE span >= ? AND last_day >= ?"
                f" AND first_day < ? AND {of_sites} UNION SELECT site, device FROM days WHERE day >= ? AND day < ?"
                f" AND {of_sites}) AS known GROUP BY site",
                (
                    *(since // SPAN_DAYS, since, days.stop),
                    *(max(since, spans_summed(engine) * SPAN_DAYS), days.stop),
                ),
            ):
                self._counts[names[site]] = devices
            return
        for site, device, day in engine.fetch(
            f"SELECT DISTINCT site, device, day FROM days WHERE day >= ? AND day < ? AND {of_sites}"
            " ORDER BY site, device, day",
            (since, days.stop),
        ):
            self._days[names[site]][device].append(day)

    def devices(self, site: str, days: range) -> int:
        """How many are known there."""
        if site not in self._days:
            return self._counts.get(site, 0)
        since = days.start - PATIENCE_DAYS
        return sum(
            (at := bisect_left(there, since)) < len(there) and there[at] < days.stop
            for there in self._days[site].values()
        )

    def length_ms(self, period: Period) -> int:
        """How much of it is over: for the rest no window could have come."""
        return max(0, min(period.end_ms, self.newest_ms) - period.start_ms)


class OpenTime:
    """Windows that began while a site was open, in the time of some figures: sums up to each of them, from 0 on."""

    def __init__(self, store: Store, site: str, figures: Sequence[Figure], place: Site) -> None:
        self._place, self._newest_ms = place, store.newest_ms
        self.starts: list[int] = []
        self.length, self.covered = [0], [0]
        for start_ms, milliseconds, covered_ppm_s in store.engine.fetch(
            "SELECT w.start_ms, w.milliseconds, w.covered_ppm_s FROM windows w JOIN sites s ON s.id = w.site"
            " WHERE s.name = ? AND w.start_ms >= ? AND w.start_ms < ? ORDER BY w.start_ms",
            (site, min(one.start_ms for one in figures), max(one.end_ms for one in figures)),
        ):
            if place.is_open(instant(start_ms)):
                self.starts.append(start_ms)
                self.length.append(self.length[-1] + milliseconds)
                self.covered.append(self.covered[-1] + covered_ppm_s)

    def open_ms(self, figure: Figure) -> int:
        """For how long the site was open in its period, up to the newest message."""
        return self._place.open_ms(figure.start_ms, min(figure.end_ms, self._newest_ms))

    def of(self, figure: Figure) -> Figure:
        """The same with coverage and `reported` of the time in which the site was open."""
        first, last = (bisect_left(self.starts, edge) for edge in (figure.start_ms, figure.end_ms))
        length = self.length[last] - self.length[first]
        covered = self.covered[last] - self.covered[first]
        return replace(
            figure,
            coverage=covered / (length * 1000) if length else None,
            reported=reported_share(length, figure.devices, self.open_ms(figure)),
        )
