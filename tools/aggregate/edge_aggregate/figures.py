"""Figures of sites and cities: the one way from whole numbers to what is shown, in a table, as JSON or on a page."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from edge.contract import utc_text
from edge_aggregate.calibration import correct
from edge_aggregate.decode import instant
from edge_aggregate.periods import local_days
from edge_aggregate.reported import Known, OpenTime, reported_share
from edge_aggregate.states import State, States
from edge_aggregate.statistics import as_read, changed, city, corrected
from edge_aggregate.statistics.parts import votes
from edge_aggregate.sums import Sums, site_sums, sums_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import tzinfo
    from fractions import Fraction

    from edge_aggregate.calibration import Correction
    from edge_aggregate.periods import Period
    from edge_aggregate.sites import Sites
    from edge_aggregate.statistics import Band, Change
    from edge_aggregate.statistics.estimates import Key
    from edge_aggregate.store import Store


@dataclass(frozen=True, slots=True)
class Figure:
    """A site, or a city, in a period.

    `happy` of `n`: released votes, `uncertain` left out; `index`, `low`, `high`: the share as the classifier reads it
    and its 95 % band; `…_corrected`: the share of happy visitors, with the band that holds for it (None where a model
    that counted is unknown). `reported`: share of the period (or of its opening hours), as often as there are
    `devices`, for which windows arrived; `coverage`: share of that reported time in which the camera could see.
    `windows` counts all, `unsynced` those of them that no figure has; `missing` never came. n ≤ 0 gives no shares.
    `cells`: the 16 released sums, unmasked's eight in `edge.types.CELLS` order, then masked's.
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
    reported: float | None
    devices: int
    windows: int
    unsynced: int
    duplicates: int
    missing: int
    state: State
    cells: tuple[int, ...]

    @property
    def uncorrected(self) -> bool:
        """Whether there is a share as read, and none corrected."""
        return self.n > 0 and self.index_corrected is None

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


@dataclass(frozen=True, slots=True)
class Reading:
    """A period of a store, read once: sums of sites, and what figures are made with. `known`: sites ever heard of."""

    period: Period
    sums: dict[str, Sums]
    known: frozenset[str]
    tables: Mapping[Key, Correction]
    states: States
    devices: Known

    def figures(self, sites: Iterable[str] | None = None) -> list[Figure]:
        """One per site, in the order of names: of all that were read, or of some of them."""
        return [
            _with_reported(
                _figure(name, self.period, sums, self.tables, self.states.period(name, self.period)),
                *(self.devices, [name], self.period, sums.milliseconds),
            )
            for name in (self.sums if sites is None else sites)
            for sums in [self.sums[name]]
        ]

    def city(self, name: str, sites: Iterable[str], weights: Mapping[str, Fraction | int] | None) -> City | None:
        """Several sites as one; None when none of them ever sent anything.

        Args:
            name: what the figure is called.
            sites: which. One that is silent in the period counts for nothing, but what it keeps may still come.
            weights: of the mean of their shares, each above 0; None: a released vote weighs the same wherever it was
                cast.

        """
        sites = sorted(sites)
        found = {site: self.sums.get(site) or Sums() for site in sites if site in self.known}
        if not found:
            return None
        each = [self.states.period(site, self.period) for site in found]
        state: State = "provisional" if "provisional" in each else "restated" if "restated" in each else "final"
        whole = Sums()
        for one in found.values():
            whole.take(one)
        if weights is None:
            figure = _figure(name, self.period, whole, self.tables, state)
        else:
            weighted = [(weights[site], one.part_list()) for site, one in found.items()]
            bands = city(weighted, self.tables, [one.held_tuple() for one in found.values()])
            figure = _shown(name, self.period, whole, bands.read, bands.corrected, state)
        figure = _with_reported(figure, self.devices, sites, self.period, whole.milliseconds)
        return City(figure, [site for site in sites if site not in found or not found[site].windows], len(sites))

    def changes(self, before: Mapping[str, Sums]) -> dict[str, Change | None]:
        """What became of the shares of sites since `before`; None for one that has none now or had none then."""
        return {
            site: changed(was.part_list(), now.part_list(), self.tables, (was.held_tuple(), now.held_tuple()))
            for site, was in before.items()
            for now in [self.sums[site]]
        }


@dataclass(frozen=True, slots=True)
class City:
    """Its figure; of its `sites`, those from which nothing came in the period."""

    figure: Figure
    silent: list[str]
    sites: int


def read(store: Store, period: Period, sites: Iterable[str] | None = None) -> Reading:
    """Read a period of the sites named, or of all with windows in it. Raises ConfigError for a site nobody heard of."""
    sites = None if sites is None else list(sites)
    with store.engine.reading():
        known = frozenset(name for (name,) in store.engine.fetch("SELECT name FROM sites"))
        states = States(store, period.days, sites, whole=True)
        devices = Known(store, period.days, sites, whole=True)
        return Reading(period, site_sums(store, period, sites), known, corrections(store), states, devices)


def figures(
    store: Store, period: Period, sites: Iterable[str] | None = None, places: Sites | None = None
) -> list[Figure]:
    """One figure per site, in the order of names: of the sites named, or of all with windows in the period.

    Where `places` knows when a site is open, coverage and `reported` are of those hours. Its counts are not cut:
    what was counted while it was open may be released after.
    """
    return while_open(store, read(store, period, sites).figures(), places)


def while_open(store: Store, found: Sequence[Figure], places: Sites | None) -> list[Figure]:
    """The same, with coverage and `reported` of opening hours. The windows of each site are read once."""
    if places is None:
        return list(found)
    of_site: dict[str, list[Figure]] = {}
    for one in found:
        if places[one.site].hours:
            of_site.setdefault(one.site, []).append(one)
    looked = {site: OpenTime(store, site, figures, places[site]) for site, figures in of_site.items()}
    return [looked[one.site].of(one) if one.site in looked else one for one in found]


def city_while_open(store: Store, reading: Reading, figure: Figure, members: Iterable[str], places: Sites) -> Figure:
    """A city's figure, with coverage and `reported` of its sites' opening hours, all of their time together."""
    length = covered = possible = 0
    for site in members:
        sums, time_ms = reading.sums.get(site) or Sums(), reading.devices.length_ms(reading.period)
        if places[site].hours:
            whole = OpenTime(store, site, [figure], places[site])
            length, covered = length + whole.length[-1], covered + whole.covered[-1]
            time_ms = whole.open_ms(figure)
        else:
            length, covered = length + sums.milliseconds, covered + sums.covered_ppm_s
        possible += time_ms * reading.devices.devices(site, reading.period.days)
    coverage = covered / (length * 1000) if length else None
    return replace(figure, coverage=coverage, reported=reported_share(length, 1, possible))


def series(
    store: Store, periods: Sequence[Period], sites: Iterable[str] | None = None, *, holes: bool = False
) -> list[Figure]:
    """The same for several periods, one after the other. `holes`: as for `sums_of`."""
    sites = None if sites is None else list(sites)
    shown = []
    with store.engine.reading():
        tables = corrections(store)
        whole = range(min(one.days.start for one in periods), max(one.days.stop for one in periods))
        states, devices = States(store, whole, sites), Known(store, whole, sites)
        for period, found in zip(periods, sums_of(store, periods, sites, holes=holes), strict=True):
            for name, sums in found.items():
                figure = _figure(name, period, sums, tables, states.period(name, period))
                shown.append(_with_reported(figure, devices, [name], period, sums.milliseconds))
    return shown


def local_series(
    store: Store,
    period: Period,
    place: tzinfo,
    sites: Iterable[str] | None = None,
    places: Sites | None = None,
    *,
    holes: bool = False,
) -> list[Figure]:
    """A figure for each local day that the period touches; days are whole. `places`: as for `figures`."""
    return while_open(store, series(store, [day for _, day in local_days(period, place)], sites, holes=holes), places)


def corrections(store: Store) -> dict[tuple[str, str], Correction]:
    """What undoes each registered confusion table, by (role, digest)."""
    return {table.key: correct(table) for table in store.tables()}


def _with_reported(figure: Figure, known: Known, sites: Iterable[str], period: Period, milliseconds: int) -> Figure:
    devices = sum(known.devices(site, period.days) for site in sites)
    return replace(figure, devices=devices, reported=reported_share(milliseconds, devices, known.length_ms(period)))


def _figure(
    name: str, period: Period, sums: Sums, tables: Mapping[tuple[str, str], Correction], state: State
) -> Figure:
    parts, held = sums.part_list(), sums.held_tuple()
    return _shown(name, period, sums, as_read(parts, held), corrected(parts, tables, held), state)


def _shown(name: str, period: Period, sums: Sums, read: Band | None, true: Band | None, state: State) -> Figure:
    cells = sums.cells()
    happy, n = votes(cells)
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
        coverage=sums.covered_ppm_s / (sums.milliseconds * 1000) if sums.milliseconds else None,
        reported=None,
        devices=0,
        windows=sums.windows,
        unsynced=sums.unsynced,
        duplicates=sums.duplicates,
        missing=sums.missing,
        state=state,
        cells=cells,
    )
