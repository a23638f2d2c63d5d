"""Whether figures of a UTC day can still change, by what the store knows: its clock is the newest `received`.

A day of a site is `final` once every device that was heard of in the 30 days before its end has left nothing in its
accumulators at or after that end and no number is missing around it (but those that a device says it lost), or once 30
days have passed. Of a run of which nothing came, around it is from the device's last window before on. It is `restated`
when windows came after that: more than 30 days late, or from a device that nobody knew of.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from edge_aggregate.store.days import DAY_MS, spans_summed
from edge_aggregate.store.schema import SPAN_DAYS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from edge_aggregate.periods import Period
    from edge_aggregate.store import Store
    from edge_aggregate.store.engine import Engine

State = Literal["provisional", "final", "restated"]

PATIENCE_DAYS: Final = 30
"""A device keeps what it sent for so long: what has not come by then will not."""

_LABEL_MS: Final = 500
"""A window may end so much before the midnight that its device flushed at."""


@dataclass(slots=True)
class _Device:
    first_day: int
    last_day: int
    closed_ms: int
    first_received_ms: int


@dataclass(slots=True)
class _Site:
    devices: dict[int, _Device] = field(default_factory=dict)
    gaps: list[tuple[int, int]] = field(default_factory=list)
    late: set[int] = field(default_factory=set)
    """Days with a window that came more than 30 days late, or after the day was final."""


class States:
    """States of days and periods of some sites, read once. Day numbers are counted from 1970.

    `whole`: only periods that touch all of `days` are asked for. Then nothing is read while the last of the days is not
    over, and of devices nothing once each that still sends has reported all.
    """

    def __init__(self, store: Store, days: range, sites: Iterable[str] | None = None, *, whole: bool = False) -> None:
        self._newest_ms = store.newest_ms
        self._sites: dict[str, _Site] = defaultdict(_Site)
        if whole and self._newest_ms < days.stop * DAY_MS:
            return
        engine = store.engine
        names = dict(engine.fetch("SELECT id, name FROM sites"))
        wanted = None if sites is None else set(sites)
        ids = [str(number) for number, name in names.items() if wanted is None or name in wanted]
        of_sites = f"site IN ({'SELECT id FROM sites' if wanted is None else ', '.join(ids) or 'NULL'})"
        since = max(days.start, self._newest_ms // DAY_MS - PATIENCE_DAYS)
        summed = spans_summed(engine)
        of_boots: dict[int, tuple[int, int]] = {}
        waited_for = not whole
        for device, closed_ms, first_ms, last_ms in engine.fetch(
            "SELECT device, COALESCE(MAX(closed_ms), 0), MIN(first_received_ms), MAX(last_start_ms) FROM boots"
            " WHERE first_received_ms IS NOT NULL GROUP BY device"
        ):
            of_boots[device] = closed_ms, first_ms
            waited_for |= closed_ms < days.stop * DAY_MS and (last_ms or 0) >= (since - PATIENCE_DAYS) * DAY_MS
        gaps = engine.fetch(
            "SELECT g.site, b.device, g.after_ms, g.before_ms, g.last_seq - g.first_seq + 1 FROM gaps g"
            f" JOIN boots b ON b.id = g.boot WHERE g.{of_sites} AND g.before_ms >= ?"
            " AND NOT EXISTS (SELECT 1 FROM replays r WHERE r.boot = g.boot AND r.gone = 1"
            " AND r.first_seq <= g.first_seq AND r.last_seq >= g.last_seq)",
            (since * DAY_MS,),
        )
        runs = _last_starts(engine, {device for _, device, after_ms, *_ in gaps if after_ms is None})
        for site, device, after_ms, before_ms, missing in gaps:
            since_ms = _lost_since(runs[device], before_ms, missing) if after_ms is None else after_ms
            self._sites[names[site]].gaps.append((since_ms, before_ms))
        if waited_for:
            heard = max(since - PATIENCE_DAYS, summed * SPAN_DAYS)
            for site, device, first_day, last_day in engine.fetch(
                "SELECT site, device, MIN(first_day), MAX(last_day) FROM ("
                f"SELECT site, device, first_day, last_day FROM spans WHERE span >= ? AND {of_sites}"
                f" UNION ALL SELECT site, device, day, day FROM days WHERE day >= ? AND {of_sites}"
                ") AS heard GROUP BY site, device",
                ((since - PATIENCE_DAYS) // SPAN_DAYS, heard),
            ):
                self._sites[names[site]].devices[device] = _Device(first_day, last_day, *of_boots[device])
        for site, day in _late(engine, days, summed, of_boots, of_sites):
            self._sites[names[site]].late.add(day)

    def day(self, site: str, day: int) -> State:
        """Of one UTC day."""
        found = self._sites.get(site) or _Site()
        end_ms = (day + 1) * DAY_MS
        if self._newest_ms < end_ms + PATIENCE_DAYS * DAY_MS and self._open(found, day, end_ms):
            return "provisional"
        return "restated" if day in found.late else "final"

    def restated(self) -> dict[str, list[int]]:
        """Of each site the days whose figures changed after they were final, in their order; of none, nothing."""
        found = {
            name: sorted(day for day in site.late if self.day(name, day) == "restated")
            for name, site in sorted(self._sites.items())
        }
        return {name: days for name, days in found.items() if days}

    def _open(self, site: _Site, day: int, end_ms: int) -> bool:
        if self._newest_ms < end_ms:
            return True
        if any(after < end_ms and before >= end_ms - DAY_MS for after, before in site.gaps):
            return True
        return any(
            device.first_day <= day <= device.last_day + PATIENCE_DAYS and device.closed_ms < end_ms - _LABEL_MS
            for device in site.devices.values()
        )

    def period(self, site: str, period: Period) -> State:
        """Provisional when one of its days is, or when it is not over; restated when one is; else final."""
        days = period.days
        end_ms = days.stop * DAY_MS
        if self._newest_ms < end_ms:  # its last day is not over
            return "provisional"
        found = self._sites.get(site)
        if found is None:
            return "final"
        settled = not found.gaps and all(device.closed_ms >= end_ms for device in found.devices.values())
        if not settled:
            recent = range(max(days.start, self._newest_ms // DAY_MS - PATIENCE_DAYS), days.stop)
            if any(self.day(site, day) == "provisional" for day in reversed(recent)):
                return "provisional"
        return "restated" if any(day in days for day in found.late) else "final"


def _lost_since(ends: list[int], before_ms: int, missing: int) -> int:
    """From when on a run is lost of which nothing came: whole days may be, and runs before it that nobody knows of yet.

    `ends`: when the last windows of the device's runs began. Of a device that nobody knew before, no more is lost than
    its numbers tell: a window is a day at most.
    """
    at = bisect_left(ends, before_ms)
    return ends[at - 1] if at else before_ms - min(missing, PATIENCE_DAYS) * DAY_MS


def _last_starts(engine: Engine, devices: set[int]) -> dict[int, list[int]]:
    """Of each device when the last window of each of its runs began, in order of time."""
    found: dict[int, list[int]] = defaultdict(list)
    for device, last_ms in engine.match(
        "boots", ("device",), [(device,) for device in sorted(devices)], ("device", "last_start_ms")
    ):
        if last_ms is not None:
            found[device].append(last_ms)
    for ends in found.values():
        ends.sort()
    return found


def _late(
    engine: Engine, days: range, summed: int, of_boots: dict[int, tuple[int, int]], of_sites: str
) -> Iterator[tuple[int, int]]:
    """(site, day) of which something came more than 30 days late, or after the day was final.

    Spans say where anything came late at all: mostly nowhere, and then no day is looked at.
    """
    spans = days.start // SPAN_DAYS, -(-days.stop // SPAN_DAYS)
    within = f"span >= ? AND span < ? AND {of_sites}"
    patience_ms = PATIENCE_DAYS * DAY_MS
    late = engine.fetch(
        f"SELECT site, MAX(late_ms), MAX(told_late_ms) FROM spans WHERE {within}"
        f" AND (late_ms > {patience_ms} OR told_late_ms > 0) GROUP BY site",
        spans,
    )
    suspected = [site for site, late_ms, _ in late if late_ms > patience_ms]
    if suspected:  # no day after the spans is 30 days old
        yield from engine.fetch(
            f"SELECT DISTINCT site, day FROM days WHERE site IN ({', '.join(map(str, suspected))})"
            f" AND day >= ? AND day < ? AND last_received_ms > (day + 1) * {DAY_MS} + {patience_ms}",
            (days.start, days.stop),
        )
    doubtful = [site for site, _, told_late_ms in late if told_late_ms > 0]
    for sites, first in (
        (f"site IN ({', '.join(map(str, doubtful))})" if doubtful else "", days.start),
        (of_sites, max(days.start, summed * SPAN_DAYS)),
    ):
        if sites and first < days.stop:
            yield from _strangers(engine, range(first, days.stop), of_boots, sites)


def _strangers(
    engine: Engine, days: range, of_boots: dict[int, tuple[int, int]], of_sites: str
) -> Iterator[tuple[int, int]]:
    """(site, day) of which windows of a device that was not known when the day ended came after all others'."""
    of_day: dict[tuple[int, int], list[tuple[int, int, bool]]] = defaultdict(list)
    doubtful = (
        f"SELECT site, day FROM days WHERE {of_sites} AND day >= ? AND day < ? GROUP BY site, day"
        f" HAVING COUNT(DISTINCT device) > 1 AND MAX(first_received_ms) > (day + 1) * {DAY_MS}"
    )
    for site, day, device, first_ms, last_ms in engine.fetch(
        "SELECT d.site, d.day, d.device, MIN(d.first_received_ms), MAX(d.last_received_ms) FROM days d"
        f" JOIN ({doubtful}) AS x ON x.site = d.site AND x.day = d.day GROUP BY d.site, d.day, d.device",
        (days.start, days.stop),
    ):
        known = of_boots[device][1] < (day + 1) * DAY_MS
        of_day[site, day].append((first_ms, last_ms, known))
    for key, devices in of_day.items():
        end_ms = (key[1] + 1) * DAY_MS
        closed_ms = max([last_ms for _, last_ms, known in devices if known], default=0)
        for first_ms, last_ms, known in sorted(devices):
            if known:
                continue
            if closed_ms and first_ms > max(closed_ms, end_ms):
                yield key
                break
            closed_ms = max(closed_ms, last_ms)
