"""What the store holds of a period, as whole numbers: per site the parts that statistics are made of.

Whole UTC days come from the tables of spans and days. At an edge that is no UTC midnight windows are read one by one,
and there, as on a day that is not over, what cells may hold back is summed: a device releases a cell once it has grown,
so that some of what was counted before the edge is released after it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from operator import add, sub
from typing import TYPE_CHECKING, Any, Final

from edge.errors import ConfigError
from edge_aggregate.decode import UNSYNCED, instant
from edge_aggregate.edges import cut, torn
from edge_aggregate.periods import Period
from edge_aggregate.statistics import Part
from edge_aggregate.store.days import DAY_MS, spans_summed
from edge_aggregate.store.merge import kept_from
from edge_aggregate.store.read import read_terms
from edge_aggregate.store.schema import CELL_COLUMNS, DRAW_COLUMNS, SPAN_DAYS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from edge_aggregate.decode import Terms
    from edge_aggregate.edges import Edge
    from edge_aggregate.store import Store

CELLS_OF_A_WINDOW: Final = len(CELL_COLUMNS)
_PartKey = tuple[str | None, str | None, float | None]


@dataclass(slots=True)
class Sums:
    """A site in a period. `parts` and `held` are of synced windows; `windows` and `duplicates` of all.

    `held`: for each cell the sum of min_count² over the devices' edges at which it may hold something back.
    `milliseconds` and `covered_ppm_s`: of all windows, their length and what of it was looked at.
    `missing`: windows that never came.
    """

    parts: dict[_PartKey, list[int]] = field(default_factory=dict)
    held: list[int] = field(default_factory=lambda: [0] * CELLS_OF_A_WINDOW)
    windows: int = 0
    unsynced: int = 0
    duplicates: int = 0
    milliseconds: int = 0
    covered_ppm_s: int = 0
    missing: int = 0

    def part_list(self) -> list[Part]:
        """What statistics take, in an order of their own."""
        return [
            Part(*key, cells=tuple(sums[:CELLS_OF_A_WINDOW]), draws=tuple(sums[CELLS_OF_A_WINDOW:]))
            for key, sums in (sorted(self.parts.items(), key=repr) if len(self.parts) > 1 else self.parts.items())
        ]

    def cells(self) -> tuple[int, ...]:
        """The 16 sums of released cells over all parts."""
        rows = [sums[:CELLS_OF_A_WINDOW] for sums in self.parts.values()]
        if len(rows) == 1:  # nearly always
            return tuple(rows[0])
        return tuple(map(sum, zip(*rows, strict=True))) or (0,) * CELLS_OF_A_WINDOW

    def held_tuple(self) -> tuple[int, ...]:
        """`()` where nothing is held back."""
        return tuple(self.held) if any(self.held) else ()

    def add(self, terms: Terms, sums: Sequence[int]) -> None:
        """Add 16 cells and 16 draws that were counted under these terms."""
        self._add((terms.fer_unmasked, terms.fer_masked, terms.epsilon), sums)

    def take(self, other: Sums) -> None:
        """Add another site's, or another period's."""
        for key, sums in other.parts.items():
            self._add(key, sums)
        self.held = list(map(add, self.held, other.held))
        self.windows += other.windows
        self.unsynced += other.unsynced
        self.duplicates += other.duplicates
        self.milliseconds += other.milliseconds
        self.covered_ppm_s += other.covered_ppm_s
        self.missing += other.missing

    def _add(self, key: _PartKey, sums: Sequence[int]) -> None:
        mine = self.parts.get(key)
        self.parts[key] = list(sums) if mine is None else list(map(add, mine, sums))


def site_sums(store: Store, period: Period, sites: Iterable[str] | None = None) -> dict[str, Sums]:
    """The sums of each site: of those named, with or without windows, or of all that have any in the period.

    Raises ConfigError for a site that nobody ever heard of, and for a part of a day whose windows were dropped.
    """
    (found,) = sums_of(store, [period], sites)
    return found


def sums_of(
    store: Store, periods: Iterable[Period], sites: Iterable[str] | None = None, *, holes: bool = False
) -> Iterator[dict[str, Sums]]:
    """The same of one period after the other; what they have in common is looked up once.

    `holes`: a period with a part of a day whose windows were dropped has no sums, and is no error.
    """
    names = dict(store.engine.fetch("SELECT id, name FROM sites"))
    wanted = None if sites is None else set(sites)
    ids = sorted(number for number, name in names.items() if wanted is None or name in wanted)
    if wanted is not None and len(ids) < len(wanted):
        raise unheard_of(min(wanted - set(names.values())), names.values())
    reading = _Reading(store, None if wanted is None else ids)
    for period in periods:
        found = reading.sums(period) if ids and not (holes and reading.torn(period)) else {}
        for site in ids if wanted is not None else ():
            found.setdefault(site, Sums())
        yield dict(sorted((names[site], sums) for site, sums in found.items()))


def unheard_of(site: str, known: Iterable[str]) -> ConfigError:
    """What is said of a site that the store does not have, with the first of those that it has."""
    there = sorted(known)
    others = ", ".join(there[:8]) + (f" and {len(there) - 8} more" if len(there) > 8 else "")
    return ConfigError(f"no window ever came from a site called {site!r:.80}: there is {others or 'none yet'}")


def kept(store: Store, period: Period) -> Period:
    """The same without the part of its first day whose windows were dropped."""
    first = -(-period.start_ms // DAY_MS) * DAY_MS
    return Period(first, period.end_ms) if period.start_ms < min(first, kept_from(store.engine)) else period


def heard_of(store: Store, period: Period) -> list[str]:
    """The names of sites with windows on the days of a period, in their order."""
    found = store.engine.fetch(
        "SELECT name FROM sites WHERE EXISTS"
        " (SELECT 1 FROM days d WHERE d.site = sites.id AND d.day >= ? AND d.day < ?)",
        (period.days.start, period.days.stop),
    )
    return sorted(name for (name,) in found)


_SUMMED: Final = (*CELL_COLUMNS, *DRAW_COLUMNS)
_HEAD: Final = ("windows", "duplicates", "milliseconds", "covered_ppm_s")
_RELEASED: Final = " | ".join(
    f"(CASE WHEN w.{name} IS NULL THEN 0 ELSE {1 << at} END)" for at, name in enumerate(CELL_COLUMNS)
)
"""A bit for each cell of a window that is released."""
_WHOLE: Final = slice(4, 7)
_CELLS: Final = slice(7, 7 + CELLS_OF_A_WINDOW)
_DRAWS: Final = slice(7 + CELLS_OF_A_WINDOW, None)
"""Where what follows `windows` in `_HEAD`, cells and draws are in a window, as `_Reading.windows` reads it."""


class _Reading:
    """Reads a period, piece by piece, for sites given by their ids, or all."""

    def __init__(self, store: Store, ids: Sequence[int] | None) -> None:
        self._engine = store.engine
        self._newest_ms = store.newest_ms
        self._kept_from = kept_from(store.engine)
        self._spans = spans_summed(store.engine)
        self._terms = read_terms(store.engine)
        # Said always, for the indexes begin with the site: without it a look at one day would read every window.
        self._sites = f"site IN ({'SELECT id FROM sites' if ids is None else ', '.join(map(str, ids))})"
        self.found: dict[int, Sums] = defaultdict(Sums)

    def sums(self, period: Period) -> dict[int, Sums]:
        """By site, of those that have any windows in it. Raises ConfigError where some of them were dropped."""
        if self.torn(period):
            begin, first = (instant(ms).isoformat(" ", "minutes") for ms in (period.start_ms, self._kept_from))
            msg = (
                f"from {begin}: of the time before {first} only whole UTC days are left (`retain`), and a part of one "
                "is asked for: give dates with --zone UTC, or begin then"
            )
            raise ConfigError(msg)
        self.found = defaultdict(Sums)
        whole, edges = cut(period, self._newest_ms)
        days = [whole] if whole else []
        for edge in edges:
            if edge.cut_before or self.goes_on(edge):
                self.windows(edge)
                continue
            day = edge.start_ms // DAY_MS
            if days and days[-1].stop == day:
                days[-1] = range(days[-1].start, day + 1)
            else:
                days.append(range(day, day + 1))
            if edge.cut_after:
                self.kept_back(edge)
        self.whole_days(days)
        self.gaps(period)
        return self.found

    def torn(self, period: Period) -> bool:
        """Whether windows were dropped that its sums are made of: the day's sums are none of a part of it."""
        return bool(self._kept_from) and torn(period, self._newest_ms, self._kept_from)

    def whole_days(self, ranges: Iterable[range]) -> None:
        """Of each range what spans hold from spans, the rest from the table of days."""
        sums: dict[tuple[int, int, int], list[int]] = {}
        for days in ranges:
            # A span that most of is in the range is read whole, and what is not in it taken off.
            first = (days.start + SPAN_DAYS // 2) // SPAN_DAYS
            stop = min((days.stop + SPAN_DAYS // 2 - 1) // SPAN_DAYS, self._spans)
            ends = (days.start, first * SPAN_DAYS), (stop * SPAN_DAYS, days.stop)
            if stop - first + sum(abs(end - start) for start, end in ends) >= len(days):
                self._summed(sums, "days", "day", days)
                continue
            self._summed(sums, "spans", "span", range(first, stop))
            for start, end in ends:
                self._summed(sums, "days", "day", range(start, end))
                self._summed(sums, "days", "day", range(end, start), -1)
        for (site, term, quality), found in sums.items():
            if found[0]:
                self._add(site, term, quality, found)

    def _summed(
        self, sums: dict[tuple[int, int, int], list[int]], table: str, unit: str, which: range, sign: int = 1
    ) -> None:
        """Add what a table holds to `sums` by (site, terms, quality), or take it off."""
        if not which:
            return
        columns = ", ".join(f"SUM({name})" for name in (*_HEAD, *_SUMMED))
        for site, term, quality, *here in self._engine.fetch(
            f"SELECT site, terms, quality, {columns} FROM {table} WHERE {unit} >= ? AND {unit} < ? AND {self._sites}"
            " GROUP BY site, terms, quality",
            (which.start, which.stop),
        ):
            key = site, term, quality
            one = here if type(here[0]) is int else list(map(int, here))  # PostgreSQL's sums are decimals
            before = sums.get(key)
            if before is not None:
                one = list(map(add if sign > 0 else sub, before, one))
            elif sign < 0:
                one = [-number for number in one]
            sums[key] = one

    def _add(self, site: int, term: int, quality: int, sums: Sequence[int]) -> None:
        """Take `_HEAD` and `_SUMMED`."""
        one = self.found[site]
        one.windows += sums[0]
        one.duplicates += sums[1]
        one.milliseconds += sums[2]
        one.covered_ppm_s += sums[3]
        if quality == UNSYNCED:
            one.unsynced += sums[0]
        else:
            one.add(self._terms[term], sums[len(_HEAD) :])

    def goes_on(self, edge: Edge) -> bool:
        """Whether the day has windows after the edge: else its sums are the edge's."""
        end_ms = (edge.start_ms // DAY_MS + 1) * DAY_MS
        return edge.end_ms < end_ms and bool(
            self._engine.fetch(
                f"SELECT 1 FROM windows WHERE {self._sites} AND start_ms >= ? AND start_ms < ? LIMIT 1",
                (edge.end_ms, end_ms),
            )
        )

    def windows(self, edge: Edge) -> None:
        """Part of a day, window by window, and what cells hold back at its cut sides."""
        rows = self._engine.fetch(
            "SELECT w.site, b.device, w.terms, w.quality, w.duplicates, w.milliseconds, w.covered_ppm_s,"
            f" {', '.join(f'w.{name}' for name in _SUMMED)} FROM windows w JOIN boots b ON b.id = w.boot"
            f" WHERE w.{self._sites} AND w.start_ms >= ? AND w.start_ms < ?"
            " ORDER BY w.site, w.start_ms, w.boot, w.seq",  # the index's own
            (edge.start_ms, edge.end_ms),
        )
        devices: dict[tuple[int, int], list[tuple[Any, ...]]] = defaultdict(list)
        for row in rows:
            devices[row[:2]].append(row)
        for windows in devices.values():
            self._of_device(windows, edge)

    def _of_device(self, windows: Sequence[tuple[Any, ...]], edge: Edge) -> None:
        site = windows[0][0]
        columns = list(zip(*windows, strict=True))
        kinds = set(zip(columns[2], columns[3], strict=True))
        for term, quality in kinds:
            if len(kinds) > 1:
                columns = list(zip(*(row for row in windows if row[2:4] == (term, quality)), strict=True))
            cells = [sum(filter(None, column)) for column in columns[_CELLS]]
            self._add(
                site, term, quality, [len(columns[0]), *map(sum, columns[_WHOLE]), *cells, *map(sum, columns[_DRAWS])]
            )
        if len(kinds) > 1:
            columns = list(zip(*(row for row in windows if row[3] != UNSYNCED), strict=True))
        if columns and columns[3][0] != UNSYNCED:
            released = zip(columns[_CELLS], columns[_DRAWS], strict=True)
            edge.hold(self.found[site].held, self._terms, columns[2], released)

    def kept_back(self, edge: Edge) -> None:
        """What the last window of each device left unreleased."""
        here = f"w.{self._sites} AND w.start_ms >= ? AND w.start_ms < ? AND w.quality <> {UNSYNCED}"
        last = {
            (site, device): (terms, released)
            for site, device, terms, released in self._engine.fetch(
                f"SELECT w.site, b.device, w.terms, {_RELEASED}"
                f" FROM (SELECT w.site, w.boot, MAX(w.start_ms) AS start_ms FROM windows w WHERE {here}"
                " GROUP BY w.site, w.boot) AS x"
                " JOIN windows w ON w.site = x.site AND w.start_ms = x.start_ms AND w.boot = x.boot"
                f" JOIN boots b ON b.id = w.boot WHERE w.quality <> {UNSYNCED}"
                " ORDER BY w.site, b.device, w.start_ms, w.boot, w.seq",  # a device may have several runs here
                (edge.start_ms, edge.end_ms),
            )
        }
        for (site, _), (terms, released) in last.items():
            held, kept = self.found[site].held, self._terms[terms].min_count ** 2
            for cell in range(CELLS_OF_A_WINDOW):
                if not released >> cell & 1:
                    held[cell] += kept

    def gaps(self, period: Period) -> None:
        """Windows that never came."""
        for site, missing in self._engine.fetch(
            "SELECT site, SUM(last_seq - first_seq + 1) FROM gaps"
            f" WHERE {self._sites} AND before_ms >= ? AND before_ms < ? GROUP BY site",
            (period.start_ms, period.end_ms),
        ):
            self.found[site].missing += int(missing)
