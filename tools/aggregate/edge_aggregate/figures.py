"""Figures of sites and cities: the one way from whole numbers to what is shown, in a table, as JSON or on a page."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from edge.contract import utc_text
from edge_aggregate.calibration import correct
from edge_aggregate.decode import instant
from edge_aggregate.periods import local_days
from edge_aggregate.states import State, States
from edge_aggregate.statistics import as_read, changed, city, corrected, counted
from edge_aggregate.sums import CELLS_OF_A_WINDOW, Sums, site_sums

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import tzinfo
    from fractions import Fraction

    from edge_aggregate.calibration import Correction
    from edge_aggregate.periods import Period
    from edge_aggregate.sites import Sites
    from edge_aggregate.statistics import Band, Change
    from edge_aggregate.store import Store


@dataclass(frozen=True, slots=True)
class Figure:
    """A site, or a city, in a period.

    `happy` of `n`: released votes, `uncertain` left out; `index`, `low`, `high`: the share as the classifier reads it
    and its 95 % band; `…_corrected`: the share of happy visitors, with the band that holds for it (None where a model
    that counted is unknown). `coverage`: of the seconds that windows told of, how many were looked at. `windows`
    counts all, `unsynced` those of them that no figure has; `missing` never came. n ≤ 0 gives no shares. `cells`: the
    16 released sums, unmasked's eight in `edge.types.CELLS` order, then masked's.
    """

    site: str
    start_ms: int
    end_ms: int
    happy: int
    n: int
    index: float | None
    low: float | None
    high: float | None
    index_corrected: float | None
    low_corrected: float | None
    high_corrected: float | None
    coverage: float | None
    windows: int
    unsynced: int
    duplicates: int
    missing: int
    state: State
    cells: tuple[int, ...]

    def json(self) -> dict[str, Any]:
        """For programs: `from` and `to` are instants, UTC."""
        body = asdict(self)
        del body["cells"]
        start, end = body.pop("start_ms"), body.pop("end_ms")
        return {
            "site": body.pop("site"),
            "from": utc_text(instant(start)),
            "to": utc_text(instant(end)),
            **body,
        }


def figures(
    store: Store, period: Period, sites: Iterable[str] | None = None, places: Sites | None = None
) -> list[Figure]:
    """One figure per site, in the order of names: of the sites named, or of all with windows in the period.

    Where `places` knows when a site is open, its coverage is that of the hours in which it is. Its counts are not cut:
    what was counted while it was open may be released after.
    """
    found = series(store, [period], sites)
    if places is None:
        return found
    return [
        replace(one, coverage=_open_coverage(store, one, places)) if places[one.site].hours else one for one in found
    ]


def _open_coverage(store: Store, figure: Figure, places: Sites) -> float | None:
    length = covered = 0
    for start_ms, milliseconds, covered_ppm_s in store.engine.fetch(
        "SELECT w.start_ms, w.milliseconds, w.covered_ppm_s FROM windows w JOIN sites s ON s.id = w.site"
        " WHERE s.name = ? AND w.start_ms >= ? AND w.start_ms < ?",
        (figure.site, figure.start_ms, figure.end_ms),
    ):
        if places[figure.site].is_open(instant(start_ms)):
            length += milliseconds
            covered += covered_ppm_s
    return covered / (length * 1000) if length else None


def series(store: Store, periods: Sequence[Period], sites: Iterable[str] | None = None) -> list[Figure]:
    """The same for several periods, one after the other."""
    sites = None if sites is None else list(sites)
    shown = []
    with store.engine.reading():
        tables = corrections(store)
        whole = range(min(one.days.start for one in periods), max(one.days.stop for one in periods))
        states = States(store, whole, sites)
        for period in periods:
            for name, sums in site_sums(store, period, sites).items():
                shown.append(_figure(name, period, sums, tables, states.period(name, period)))
    return shown


def local_series(store: Store, period: Period, place: tzinfo, sites: Iterable[str] | None = None) -> list[Figure]:
    """A figure for each local day that the period touches; days are whole."""
    return series(store, [day for _, day in local_days(period, place)], sites)


def change(store: Store, site: str, before: Period, after: Period) -> Change | None:
    """What became of a site's share from one period to another; None where either has none."""
    with store.engine.reading():
        one, two = (site_sums(store, period, [site])[site] for period in (before, after))
        tables = corrections(store)
    return changed(one.part_list(), two.part_list(), tables, (one.held_tuple(), two.held_tuple()))


def city_figure(
    store: Store, period: Period, name: str, sites: Iterable[str], weights: Mapping[str, Fraction | int] | None
) -> Figure:
    """Several sites as one.

    Args:
        store: read from.
        period: of all of them.
        name: what the figure is called.
        sites: which.
        weights: of the mean of their shares, each above 0; None: a released vote weighs the same wherever it was cast.

    """
    with store.engine.reading():
        found = site_sums(store, period, sites)
        tables = corrections(store)
        states = States(store, period.days, found)
    each = [states.period(site, period) for site in found]
    state: State = "provisional" if "provisional" in each else "restated" if "restated" in each else "final"
    lists = [(sums.part_list(), sums.held_tuple()) for sums in found.values()]
    if weights is None:
        parts = [part for one, _ in lists for part in one]
        held = tuple(sum(kept) for kept in zip(*(one.held for one in found.values()), strict=True))
        held = held if any(held) else ()
        read, true = as_read(parts, held), corrected(parts, tables, held)
    else:
        weighted = [(weights[site], parts) for site, (parts, _) in zip(found, lists, strict=True)]
        bands = city(weighted, tables, [held for _, held in lists])
        read, true = bands.read, bands.corrected
    return _shown(name, period, list(found.values()), read, true, state)


def corrections(store: Store) -> dict[tuple[str, str], Correction]:
    """What undoes each registered confusion table, by (role, digest)."""
    return {table.key: correct(table) for table in store.tables()}


def _figure(
    name: str, period: Period, sums: Sums, tables: Mapping[tuple[str, str], Correction], state: State
) -> Figure:
    parts, held = sums.part_list(), sums.held_tuple()
    return _shown(name, period, [sums], as_read(parts, held), corrected(parts, tables, held), state)


def _shown(
    name: str, period: Period, sums: Sequence[Sums], read: Band | None, true: Band | None, state: State
) -> Figure:
    parts = [part for one in sums for part in one.part_list()]
    happy, n = counted(parts)
    length = sum(one.milliseconds for one in sums)
    covered = sum(one.covered_ppm_s for one in sums)
    return Figure(
        site=name,
        start_ms=period.start_ms,
        end_ms=period.end_ms,
        happy=happy,
        n=n,
        index=None if read is None else read.index,
        low=None if read is None else read.low,
        high=None if read is None else read.high,
        index_corrected=None if true is None else true.index,
        low_corrected=None if true is None else true.low,
        high_corrected=None if true is None else true.high,
        coverage=covered / (length * 1000) if length else None,
        windows=sum(one.windows for one in sums),
        unsynced=sum(one.unsynced for one in sums),
        duplicates=sum(one.duplicates for one in sums),
        missing=sum(one.missing for one in sums),
        state=state,
        cells=tuple(sum(part.cells[place] for part in parts) for place in range(CELLS_OF_A_WINDOW)),
    )
