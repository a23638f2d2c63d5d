"""What each page shows, as plain values: read from the store by the same functions as the command line."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from edge.errors import ConfigError
from edge.types import CELLS, EMOTIONS, ROUTES
from edge_aggregate.decode import instant
from edge_aggregate.edges import torn
from edge_aggregate.export import dead_letters
from edge_aggregate.figures import local_series, read, while_open
from edge_aggregate.periods import Period, last
from edge_aggregate.profile import LEAST_DAYS, week
from edge_aggregate.sites import DAYS
from edge_aggregate.states import States
from edge_aggregate.statistics import discoveries
from edge_aggregate.store.days import DAY_MS
from edge_aggregate.store.fleet import read_fleet
from edge_aggregate.store.merge import kept_from
from edge_aggregate.sums import heard_of, kept, site_sums
from edge_aggregate.web import atlas, charts

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
HOT_C: Final = 80
"""A Pi slows itself from here on."""
CERTIFICATE_DAYS: Final = 30
HEARD_DAYS: Final = 7
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
    cities, troubles = [], []
    for name, members in sites.cities.items():
        try:
            _, weights = sites.weighed(name, weighting)
        except ConfigError as error:
            troubles.append(str(error))
            continue
        if (one := reading.city(name, members, weights)) is not None:
            cities.append((one.figure, [sites.name(silent) for silent in one.silent], one.sites))
    dots = [
        atlas.Dot(place.latitude, place.longitude, sites.name(site), f"/site/{site}", sums.index)
        for site, sums in reading.sums.items()
        if (place := sites[site]).latitude is not None and place.longitude is not None
    ]
    return {
        "period": period,
        "found": while_open(store, reading.figures(shown), sites),
        "moves": _moves(store, reading, shown),
        "page": number,
        "pages": pages,
        "first": (number - 1) * PAGE_SITES + 1,
        "all_sites": len(names),
        "cities": cities,
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
    hours = week(store, name, four_weeks, place)
    context["week"] = [(DAYS[day], hours[day * 24 : day * 24 + 24]) for day in range(7)]
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
    """Devices heard of in the last `HEARD_DAYS`: what each says of itself, when it was heard, what is missing of it."""
    newest = store.newest_ms
    today = newest // DAY_MS
    counted = {
        device: (site, last_ms, int(windows), int(length), int(covered))
        for device, site, last_ms, windows, length, covered in store.engine.fetch(
            "SELECT d.name, MAX(w.name), MAX(x.last_ms), SUM(x.windows), SUM(x.length), SUM(x.covered)"
            " FROM devices d JOIN (SELECT device, site, MAX(last_received_ms) AS last_ms, SUM(windows) AS windows,"
            " SUM(milliseconds) AS length, SUM(covered_ppm_s) AS covered FROM days WHERE day >= ?"
            " GROUP BY device, site) x ON x.device = d.id JOIN sites w ON w.id = x.site GROUP BY d.name",
            (today - HEARD_DAYS,),
        )
    }
    missing = dict(
        store.engine.fetch(
            "SELECT d.name, SUM(g.last_seq - g.first_seq + 1) FROM gaps g JOIN boots b ON b.id = g.boot"
            " JOIN devices d ON d.id = b.device WHERE g.before_ms >= ? GROUP BY d.name",
            (newest - 30 * DAY_MS,),
        )
    )
    members = {member.device: member for member in read_fleet(store.engine)}
    since = newest - HEARD_DAYS * DAY_MS
    heard = {name for name, one in members.items() if max(one.status_ms or 0, one.health_ms or 0) >= since}
    return {
        "devices": [
            _device(name, members.get(name), counted.get(name), int(missing.get(name, 0)), newest)
            for name in sorted(heard | counted.keys())
        ],
        "restated": {
            site: [instant(day * DAY_MS).date().isoformat() for day in days]
            for site, days in States(store, range(today - RESTATED_DAYS, today + 1)).restated().items()
        },
        "restated_days": RESTATED_DAYS,
        "heard_days": HEARD_DAYS,
    }


def _device(
    name: str, member: Member | None, counted: tuple[str, int, int, int, int] | None, missing: int, newest_ms: int
) -> dict[str, Any]:
    """A row of the fleet. What a device does not say is None."""
    health = json.loads(member.health) if member is not None and member.health else {}
    site, last_ms, windows, length, covered = counted or (member.site if member else "", None, 0, 0, 0)
    heard = [at for at in (last_ms, member and member.status_ms, member and member.health_ms) if at is not None]
    days = health.get("certificate_days")
    notes = [
        *([f"scene {health['scene']}"] if health.get("scene", "ok") != "ok" else []),
        *(["paused"] if health.get("paused") else []),
        *([f"frames: {health['rate']}"] if health.get("rate", "ok") != "ok" else []),
        *([f"{health['outbox']['unsent']} rows unsent"] if health.get("outbox", {}).get("unsent") else []),
        *([f"{health['soc_c']:.0f} °C"] if (health.get("soc_c") or 0) >= HOT_C else []),
        *(["supply too weak"] if health.get("under_voltage") else []),
        *([f"certificate ends in {days:.0f} days"] if days is not None and days < CERTIFICATE_DAYS else []),
        *([member.trouble] if member is not None and member.trouble else []),
    ]
    return {
        "device": name,
        "site": site,
        "state": None if member is None else member.state,
        "version": None if member is None else member.version,
        "heard": instant(max(heard)),
        "silent_h": max(0, newest_ms - max(heard)) / 3_600_000,
        "windows": windows,
        "coverage": covered / (length * 1000) if length else None,
        "missing": missing,
        "notes": notes,
    }


def quality(store: Store, _sites: Sites) -> dict[str, Any]:
    """What was refused, doubled or contradicted."""
    fetch = store.engine.fetch
    conflicts = int(fetch("SELECT COALESCE(SUM(lines), 0) FROM variants")[0][0])
    return {
        "kinds": fetch("SELECT kind, lines FROM dead_kinds ORDER BY lines DESC, kind"),
        "conflicts": conflicts,
        "duplicates": int(fetch("SELECT COALESCE(SUM(duplicates), 0) FROM days")[0][0]),
        "letters": dead_letters(store)[-NEWEST:][::-1],
        "missing": int(fetch("SELECT COALESCE(SUM(last_seq - first_seq + 1), 0) FROM gaps")[0][0]),
    }
