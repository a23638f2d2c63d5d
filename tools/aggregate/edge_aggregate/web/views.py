"""What each page shows, as plain values: read from the store by the same functions as the command line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from edge.errors import ConfigError
from edge.types import CELLS, EMOTIONS, ROUTES
from edge_aggregate.decode import instant
from edge_aggregate.device_notes import REMOVED, notes, spoke_ms, taken_away
from edge_aggregate.edges import torn
from edge_aggregate.export import dead_letters
from edge_aggregate.figures import local_series, read, while_open
from edge_aggregate.missing_tables import named, without_table
from edge_aggregate.periods import Period, last
from edge_aggregate.profile import LEAST_DAYS, flushed_note, week
from edge_aggregate.reported import reported_share
from edge_aggregate.sites import DAYS
from edge_aggregate.states import States
from edge_aggregate.statistics import discoveries, full_share
from edge_aggregate.store.days import DAY_MS
from edge_aggregate.store.fleet import read_fleet
from edge_aggregate.store.merge import kept_from
from edge_aggregate.sums import heard_of, kept, site_sums
from edge_aggregate.web import atlas, charts
from edge_aggregate.web.freshness import HOUR_MS, heard_ms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge_aggregate.figures import Figure, Reading
    from edge_aggregate.sites import Sites
    from edge_aggregate.statistics import Change
    from edge_aggregate.store import Store
    from edge_aggregate.store.fleet import Member

LASTS: Final = {"24h": "last 24 hours", "7d": "last 7 days", "28d": "last 28 days", "90d": "last 90 days"}
WEIGHTINGS: Final = {"votes": "each vote alike", "sites": "each site alike", "population": "by population"}
PAGE_SITES: Final = 100
"""Rows of the table of sites: more are read by nobody, and cost what they show."""
NEWEST: Final = 50
COUNTED_DAYS: Final = 7
"""Of the windows that the fleet's page adds up."""
RESTATED_DAYS: Final = 90
"""How far back the fleet's page looks for figures that changed after they were final."""


@dataclass(frozen=True, slots=True)
class Moved:
    """A site's change since 28 days before; `shown`: not likely chance, among all the sites it is shown with."""

    change: Change | None
    shown: bool


def _moves(store: Store, reading: Reading, sites: Sequence[str]) -> dict[str, Moved]:
    changes = reading.changes(site_sums(store, kept(store, reading.period.before()), sites))
    shown = discoveries([None if one is None else one.best.p for one in changes.values()])
    return {site: Moved(one, is_shown) for (site, one), is_shown in zip(changes.items(), shown, strict=True)}


def overview(store: Store, sites: Sites, asked: str, weighting: str, page: str = "1") -> dict[str, Any]:
    """Cities, where sites are, and a page of the table of sites.

    Bands and changes are made for the sites on this page. Where nothing is shown of the others, they are not read.
    """
    period = kept(store, last(asked, store.newest_ms))
    if any(site.city is not None or site.latitude is not None for site in sites.sites.values()):
        reading = read(store, period)
        names = list(reading.sums)
    else:
        reading, names = None, heard_of(store, period)
    pages = max(1, -(-len(names) // PAGE_SITES))
    number = min(max(1, int(page)), pages)
    shown = names[(number - 1) * PAGE_SITES : number * PAGE_SITES]
    reading = reading or read(store, period, shown)
    cities: list[tuple[Figure, list[str], int, list[str]]] = []
    troubles = []
    for name, members in sites.cities.items():
        try:
            _, weights = sites.weighed(name, weighting)
        except ConfigError as error:
            troubles.append(str(error))
            continue
        if (one := reading.city(name, members, weights)) is not None:
            cities.append((one.figure, [sites.name(silent) for silent in one.silent], one.sites, members))
    dots = [
        atlas.Dot(place.latitude, place.longitude, sites.name(site), f"/site/{site}", full_share(sums.part_list()))
        for site, sums in reading.sums.items()
        if (place := sites[site]).latitude is not None and place.longitude is not None
    ]
    found = while_open(store, reading.figures(shown), sites)
    bare = {one.site for one in found if one.uncorrected}
    of_cities = [members for figure, _, _, members in cities if figure.uncorrected]
    lacking = without_table(store, period.days, bare.union(*of_cities))
    return {
        "period": period,
        "found": found,
        "lacking": named(lacking),
        "moves": _moves(store, reading, shown),
        "page": number,
        "pages": pages,
        "first": (number - 1) * PAGE_SITES + 1,
        "all_sites": len(names),
        "cities": [
            (figure, silent, count, named(one for one in lacking if figure.uncorrected and one.site in members))
            for figure, silent, count, members in cities
        ],
        "troubles": troubles,
        "map": atlas.draw("Where the sites are, and their share of happy as read", dots) if dots else None,
    }


def site(store: Store, sites: Sites, name: str, asked: str) -> dict[str, Any]:
    """One site. Raises ConfigError when nobody ever heard of it."""
    place = sites[name].place
    period = kept(store, last(asked, store.newest_ms))
    reading = read(store, period, [name])
    by_day = local_series(store, period, place, [name], holes=True)
    figure, *days = while_open(store, [*reading.figures(), *by_day], sites)
    dropped = [torn(Period(one.start_ms, one.end_ms), store.newest_ms, kept_from(store.engine)) for one in days]
    labels = [instant(one.start_ms).astimezone(place).strftime("%d %b") for one in days]
    lines = [
        charts.Line("read", [(one.index, one.low, one.high) for one in days]),
        charts.Line("true", [(one.index_corrected, one.low_corrected, one.high_corrected) for one in days]),
    ]
    context: dict[str, Any] = {
        "figure": figure,
        "lacking": named(without_table(store, period.days, [name] if figure.uncorrected else [])),
        "hours": sites[name].hours is not None,
        "moved": _moves(store, reading, [name])[name],
        "period": period,
        "days": list(zip(labels, days, dropped, strict=True)),
        "chart": charts.line_chart(
            "Share of happy by day, as read and corrected", labels, lines, [one.state == "provisional" for one in days]
        ),
        "mix": _mix(figure),
        "place": place,
    }
    context["mix_chart"] = charts.bar_chart(
        "Expressions by route", [(route, [(c, share) for c, _, share in row]) for route, row, _ in context["mix"]]
    )
    four_weeks = Period(store.newest_ms - LEAST_DAYS * DAY_MS, store.newest_ms)
    found = week(store, name, four_weeks, place)
    context["flushed"] = flushed_note(found.flushed) if found.flushed else ""
    context["week"] = [(DAYS[day], found.hours[day * 24 : day * 24 + 24]) for day in range(7)]
    context["week_chart"] = charts.heat_map(
        "Released votes by hour of the week",
        [(day, [h.n if h.windows else None for h in row]) for day, row in context["week"]],
    )
    return context


def _mix(figure: Figure) -> list[tuple[str, list[tuple[str, int, float]], int]]:
    """Per route: (class, votes, share of the seven), and their sum. What noise left below zero shows as none."""
    rows = []
    for at, route in enumerate(ROUTES):
        cells = dict(zip(CELLS, figure.cells[at * len(CELLS) :], strict=False))
        whole = sum(max(0, cells[emotion]) for emotion in EMOTIONS)
        rows.append(
            (
                route,
                [(e, cells[e], max(0, cells[e]) / whole if whole else 0.0) for e in EMOTIONS],
                sum(cells[e] for e in EMOTIONS),
            )
        )
    return rows


def fleet(store: Store, _sites: Sites) -> dict[str, Any]:
    """Every device that was heard of: what it says of itself, when it was heard, what its last days hold, what lacks.

    One that is silent stays, until retention drops its last window and its status, or the status is taken from the
    broker: what is dead must not vanish from where the dead are looked for.
    """
    since_day = store.newest_ms // DAY_MS - COUNTED_DAYS
    counted = {
        device: _Counted(site, last_ms, int(windows), int(length), int(covered))
        for device, site, last_ms, windows, length, covered in store.engine.fetch(
            "SELECT d.name, MAX(w.name), MAX(x.last_ms), SUM(x.windows), SUM(x.length), SUM(x.covered)"
            " FROM devices d JOIN (SELECT device, site, MAX(last_received_ms) AS last_ms, SUM(windows) AS windows,"
            " SUM(milliseconds) AS length, SUM(covered_ppm_s) AS covered FROM days WHERE day >= ?"
            " GROUP BY device, site) x ON x.device = d.id JOIN sites w ON w.id = x.site GROUP BY d.name",
            (since_day,),
        )
    }
    for device, site, last_ms in store.engine.fetch(_LAST_WINDOWS):
        if device not in counted:
            counted[device] = _Counted(site, last_ms)
    missing = dict(
        store.engine.fetch(
            "SELECT d.name, SUM(g.last_seq - g.first_seq + 1) FROM gaps g JOIN boots b ON b.id = g.boot"
            " JOIN devices d ON d.id = b.device WHERE g.before_ms >= ? GROUP BY d.name",
            (store.newest_ms - 30 * DAY_MS,),
        )
    )
    members = {member.device: member for member in read_fleet(store.engine)}
    now_ms, counted_ms = max(store.newest_ms, heard_ms(store)), store.newest_ms - since_day * DAY_MS
    rows = [
        _device(name, members.get(name), counted.get(name), now_ms, counted_ms) | {"missing": int(missing.get(name, 0))}
        for name in sorted(members.keys() | counted.keys())
        if name not in members or not taken_away(members[name], counted[name].last_ms if name in counted else 0)
    ]
    days = range(store.newest_ms // DAY_MS - RESTATED_DAYS, store.newest_ms // DAY_MS + 1)
    return {
        "devices": rows,
        "restated": {
            site: [instant(day * DAY_MS).date().isoformat() for day in late]
            for site, late in States(store, days).restated().items()
        },
        "restated_days": RESTATED_DAYS,
        "counted_days": COUNTED_DAYS,
    }


class _Counted(NamedTuple):
    """What a device's windows of the last `COUNTED_DAYS` add up to; of one without any, when its last was received."""

    site: str
    last_ms: int
    windows: int = 0
    length_ms: int = 0
    covered_ppm_s: int = 0


_LAST_WINDOWS: Final = (
    "SELECT d.name, s.name, w.received_ms FROM (SELECT id, device, top_seq,"
    " ROW_NUMBER() OVER (PARTITION BY device ORDER BY last_start_ms DESC, id DESC) AS place FROM boots"
    " WHERE last_start_ms IS NOT NULL) AS b"
    # Not JOIN: SQLite would begin with all windows that are held.
    " CROSS JOIN windows w JOIN devices d ON d.id = b.device JOIN sites s ON s.id = w.site"
    " WHERE b.place = 1 AND w.boot = b.id AND w.seq = b.top_seq ORDER BY d.name"
)
"""The last window of every device, of those that were not dropped."""


def _device(name: str, member: Member | None, counted: _Counted | None, now_ms: int, counted_ms: int) -> dict[str, Any]:
    """A row of the fleet. What a device does not say is None."""
    found = counted or _Counted(member.site if member else "", 0)
    heard = max(found.last_ms, 0 if member is None else spoke_ms(member))
    status = None if member is None or member.state == REMOVED else member
    return {
        "device": name,
        "site": found.site,
        "state": None if status is None else status.state,
        "version": None if status is None else status.version,
        "heard": instant(heard),
        "silent_h": max(0, now_ms - heard) / HOUR_MS,
        "windows": found.windows,
        "coverage": found.covered_ppm_s / (found.length_ms * 1000) if found.length_ms else None,
        "reported": reported_share(found.length_ms, 1, counted_ms),
        "notes": [] if member is None else notes(member),
    }


def quality(store: Store, _sites: Sites) -> dict[str, Any]:
    """What was refused, doubled or contradicted."""
    fetch = store.engine.fetch
    conflicts = int(fetch("SELECT COALESCE(SUM(lines), 0) FROM variants")[0][0])
    return {
        "kinds": fetch("SELECT kind, lines FROM dead_kinds ORDER BY lines DESC, kind"),
        "conflicts": conflicts,
        "duplicates": int(fetch("SELECT COALESCE(SUM(duplicates), 0) FROM days")[0][0]),
        "letters": dead_letters(store, NEWEST)[::-1],
        "missing": int(fetch("SELECT COALESCE(SUM(last_seq - first_seq + 1), 0) FROM gaps")[0][0]),
    }
