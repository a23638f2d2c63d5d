"""What the store holds of a period, as whole numbers: per site the parts that statistics are made of.

Whole UTC days come from the table of days. At an edge that is no UTC midnight, and on a day that is not over, windows
are read one by one, and what cells may hold back there is summed: a device releases a cell once it has grown, so that
some of what was counted before the edge is released after it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Final

from edge.errors import ConfigError
from edge_aggregate.decode import UNSYNCED
from edge_aggregate.statistics import Part
from edge_aggregate.store.days import DAY_MS
from edge_aggregate.store.read import read_terms
from edge_aggregate.store.schema import CELL_COLUMNS, DRAW_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from edge_aggregate.decode import Terms
    from edge_aggregate.periods import Period
    from edge_aggregate.store import Store

CELLS_OF_A_WINDOW: Final = len(CELL_COLUMNS)


@dataclass(slots=True)
class Sums:
    """A site in a period. `parts` and `held` are of synced windows; `windows` and `duplicates` of all.

    `held`: for each cell the sum of min_count² over the devices' edges at which it may hold something back.
    `milliseconds` and `covered_ppm_s`: of all windows, their length and what of it was looked at.
    `missing`: windows that never came.
    """

    parts: dict[tuple[str | None, str | None, float | None], list[int]] = field(default_factory=dict)
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
            for key, sums in sorted(self.parts.items(), key=repr)
        ]

    def held_tuple(self) -> tuple[int, ...]:
        """`()` where nothing is held back."""
        return tuple(self.held) if any(self.held) else ()

    def add(self, terms: Terms, sums: Sequence[int]) -> None:
        """Add 16 cells and 16 draws that were counted under these terms."""
        key = terms.fer_unmasked, terms.fer_masked, terms.epsilon
        mine = self.parts.setdefault(key, [0] * (2 * CELLS_OF_A_WINDOW))
        for place, value in enumerate(sums):
            mine[place] += value


def site_sums(store: Store, period: Period, sites: Iterable[str] | None = None) -> dict[str, Sums]:
    """The sums of each site: of those named, with or without windows, or of all that have any in the period.

    Raises ConfigError for a site that nobody ever heard of.
    """
    engine = store.engine
    names = dict(engine.fetch("SELECT id, name FROM sites"))
    wanted = None if sites is None else set(sites)
    ids = None if wanted is None else sorted(number for number, name in names.items() if name in wanted)
    if ids is not None and wanted is not None and len(ids) < len(wanted):
        msg = f"no window ever came from a site called {min(wanted - set(names.values()))!r:.80}"
        raise ConfigError(msg)
    found: dict[int, Sums] = defaultdict(Sums)
    terms = read_terms(engine)
    whole, edges = _cut(period, store.newest_ms)
    chosen = "" if ids is None else f" AND site IN ({', '.join(map(str, ids))})"
    if whole:
        summed = ", ".join(f"SUM({name})" for name in (*CELL_COLUMNS, *DRAW_COLUMNS))
        for site, term, quality, windows, duplicates, length, covered, *sums in engine.fetch(
            "SELECT site, terms, quality, SUM(windows), SUM(duplicates), SUM(milliseconds), SUM(covered_ppm_s),"
            f" {summed} FROM days"
            f" WHERE day >= ? AND day < ?{chosen} GROUP BY site, terms, quality",
            (whole.start, whole.stop),
        ):
            one = found[site]
            one.windows += int(windows)
            one.duplicates += int(duplicates)
            one.milliseconds += int(length)
            one.covered_ppm_s += int(covered)
            if quality == UNSYNCED:
                one.unsynced += int(windows)
            else:
                one.add(terms[term], list(map(int, sums)))
    for edge in edges:
        _add_edge(store, edge, found, terms, chosen)
    for site, missing in engine.fetch(
        f"SELECT site, SUM(last_seq - first_seq + 1) FROM gaps WHERE before_ms >= ? AND before_ms < ?{chosen}"
        " GROUP BY site",
        (period.start_ms, period.end_ms),
    ):
        found[site].missing += int(missing)
    for site in ids or ():
        found.setdefault(site, Sums())
    return dict(sorted((names[site], sums) for site, sums in found.items()))


@dataclass(frozen=True, slots=True)
class _Edge:
    """Part of one UTC day; `cut` at a side that is no midnight, or no midnight that has come."""

    start_ms: int
    end_ms: int
    cut_before: bool
    cut_after: bool


def _cut(period: Period, newest_ms: int) -> tuple[range, list[_Edge]]:
    """The whole days of a period, and what is left of it. A day that is not over is none."""
    over = newest_ms // DAY_MS  # this day is not
    first = -(-period.start_ms // DAY_MS)
    stop = min(period.end_ms // DAY_MS, over)
    if stop <= first:
        first = stop = period.start_ms // DAY_MS
    edges = []
    starts = [period.start_ms] if stop <= first else []
    if stop > first and period.start_ms < first * DAY_MS:
        edges.append(_Edge(period.start_ms, first * DAY_MS, cut_before=True, cut_after=False))
    rest = starts[0] if starts else stop * DAY_MS
    while rest < period.end_ms:
        end = min((rest // DAY_MS + 1) * DAY_MS, period.end_ms)
        edges.append(_Edge(rest, end, cut_before=bool(rest % DAY_MS), cut_after=bool(end % DAY_MS) or end > newest_ms))
        if end > newest_ms + DAY_MS:  # nothing begins later
            break
        rest = end
    return range(first, stop), edges


def _add_edge(store: Store, edge: _Edge, found: dict[int, Sums], terms: dict[int, Terms], chosen: str) -> None:
    columns = ", ".join(f"w.{name}" for name in (*CELL_COLUMNS, *DRAW_COLUMNS))
    rows = store.engine.fetch(
        "SELECT w.site, b.device, w.terms, w.quality, w.duplicates, w.milliseconds, w.covered_ppm_s,"
        f" {columns} FROM windows w JOIN boots b ON b.id = w.boot"
        f" WHERE w.start_ms >= ? AND w.start_ms < ?{chosen.replace('site', 'w.site')}"
        " ORDER BY w.site, b.device, w.start_ms, w.boot, w.seq",
        (edge.start_ms, edge.end_ms),
    )
    for (site, _), group in groupby(rows, key=lambda row: row[:2]):
        one = found[site]
        synced = []
        for row in group:
            _, _, term, quality, duplicates, length, covered, *cells = row
            one.windows += 1
            one.duplicates += duplicates
            one.milliseconds += length
            one.covered_ppm_s += covered
            if quality == UNSYNCED:
                one.unsynced += 1
                continue
            one.add(terms[term], [cell or 0 for cell in cells])
            synced.append((terms[term], cells))
        _hold(one.held, synced, edge)


def _hold(held: list[int], windows: Sequence[tuple[Terms, Sequence[int | None]]], edge: _Edge) -> None:
    """What one device's cells may hold back at the edge's cut sides."""
    if not windows:
        return
    last_terms, last_cells = windows[-1]
    for cell in range(CELLS_OF_A_WINDOW):
        if edge.cut_after and last_cells[cell] is None:
            held[cell] += last_terms.min_count**2
        if edge.cut_before:
            for number, (terms, cells) in enumerate(windows, 1):
                if cells[cell] is None:
                    continue
                # Without noise a release does not say since when it grew.
                silent = terms.mechanism == "none" and terms.min_count > 1
                if silent or (cells[CELLS_OF_A_WINDOW + cell] or 0) > number:
                    held[cell] += terms.min_count**2
                break
