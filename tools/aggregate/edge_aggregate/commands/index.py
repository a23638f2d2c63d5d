"""`edge-aggregate index`: the happiness index of sites, or of a city, in a period."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, Final

from edge.errors import ConfigError
from edge_aggregate.commands.periods import add_period, asked_sites, read_period, read_place

if TYPE_CHECKING:
    import argparse
    from datetime import tzinfo

    from edge_aggregate.figures import Figure, Reading
    from edge_aggregate.periods import Period
    from edge_aggregate.sites import Sites
    from edge_aggregate.store import Store


_LEGEND: Final = (
    "reported: share of the period (or of the opening hours in --sites) for which windows arrived; coverage: share of "
    "that reported time in which the camera could see"
)


def add(commands: argparse._SubParsersAction[Any]) -> None:
    """Its arguments."""
    parser = commands.add_parser("index", help="the happiness index of sites in a period, with its band")
    add_period(parser)
    parser.add_argument("--city", metavar="ID", help="all sites of a city as one, by the sites file")
    parser.add_argument(
        "--weighting",
        choices=("votes", "sites", "population"),
        help="of a city: each vote alike, each site alike, or by the sites' population",
    )
    parser.add_argument(
        "--by", choices=("day", "hour-of-week"), help="a row per local day, or per hour of the week (28 days)"
    )
    parser.add_argument("--compare", action="store_true", help="what became of each share since 28 days before")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """A row per site, per day, per hour of the week, or one for a city."""
    from edge_aggregate.figures import local_series, read, while_open
    from edge_aggregate.profile import LEAST_DAYS
    from edge_aggregate.sites import read_sites
    from edge_aggregate.store import open_store

    sites = read_sites(args.sites)
    place = read_place(args, sites)
    _fits(args)
    if args.by == "hour-of-week" and args.start is None:
        args.last = args.last or f"{LEAST_DAYS}d"
    changes: list[dict[str, Any] | None] = []
    with open_store(args.store, read_only=True) as store:
        period = read_period(args, store, place)
        if args.by == "hour-of-week":
            return _week(args, store, period, place)
        if args.city is not None:
            found = [_city(store, period, sites, args)]
        elif args.by == "day":
            found = local_series(store, period, place, asked_sites(args), sites)
        else:
            reading = read(store, period, asked_sites(args))
            found = while_open(store, reading.figures(), sites)
            changes = _changes(store, reading, place) if args.compare else []
        until = "" if found else _until(store)
        lacking = _lacking(store, period, found, sites.cities.get(args.city, []))
    if args.json:
        rows = [figure.json() for figure in found]
        for row, change in zip(rows, changes, strict=False):
            row["change"] = change
        print(json.dumps(rows))
        return 0
    if not found:
        print(f"no windows in this period{until}")
    show(found, place, by_day=args.by == "day")
    for text in lacking:
        print(text)
    for figure, change in zip(found, changes, strict=False):
        print(_change(figure, change))
    return 0


def _until(store: Store) -> str:
    """When the newest window began, for who looked elsewhere."""
    from edge.contract import utc_text
    from edge_aggregate.decode import instant

    newest = store.engine.fetch("SELECT MAX(start_ms) FROM windows")[0][0]
    if newest is None:
        return ": the store is empty: `edge-aggregate ingest` fills it"
    return f": the newest began {utc_text(instant(newest))}"


def _lacking(store: Store, period: Period, found: list[Figure], members: list[str]) -> list[str]:
    """Why shares are not corrected: a line for each model without a table. `members`: the sites of a city."""
    from edge_aggregate.missing_tables import named, without_table

    bare = [site for figure in found if figure.uncorrected for site in (members or [figure.site])]
    return [
        f"– corrected: no confusion table of {one}: `edge-aggregate calibrate` with its bundle's manifest"
        for one in named(without_table(store, period.days, bare))
    ]


def _fits(args: argparse.Namespace) -> None:
    """Arguments that do not go together. Raises ConfigError."""
    sites = args.site or []
    wrong = (
        (args.city is not None and args.sites is None, "--city needs --sites FILE, which says what belongs to it"),
        (args.city is not None and bool(sites), "give --city or --site, not both"),
        (args.city is not None and args.weighting is None, "--city needs --weighting votes, sites or population"),
        (args.city is None and args.weighting is not None, "--weighting needs --city"),
        (args.city is not None and args.by is not None, "--by is of sites: leave out --city"),
        (args.compare and (args.by is not None or args.city is not None), "--compare is of sites in one period"),
        (args.by == "hour-of-week" and (len(sites) != 1 or "all" in sites), "--by hour-of-week is of one --site"),
    )
    for is_so, msg in wrong:
        if is_so:
            raise ConfigError(msg)


def _week(args: argparse.Namespace, store: Store, period: Period, place: tzinfo) -> int:
    from edge_aggregate.profile import flushed_note, week
    from edge_aggregate.sites import DAYS

    hours, flushed = week(store, args.site[0], period, place)
    if args.json:
        rows = [
            {
                "weekday": DAYS[h.weekday],
                "hour": h.hour,
                "happy": h.happy,
                "n": h.n,
                "index": h.index,
                "windows": h.windows,
            }
            for h in hours
        ]
        print(json.dumps(rows))
        if flushed:
            print(flushed_note(flushed), file=sys.stderr)
        return 0
    print(f"{args.site[0]}: share of happy as read, in percent, by hour of the week ({place})")
    print("     " + "".join(f"{hour:5d}" for hour in range(24)))
    for day, name in enumerate(DAYS):
        row = hours[day * 24 : day * 24 + 24]
        print(f"{name}  " + "".join("    –" if h.index is None else f"{100 * h.index:5.0f}" for h in row))
    print("–: no votes, or too few for the noise in them")
    if flushed:
        print(flushed_note(flushed))
    if period.end_ms >= store.newest_ms:
        print("up to the newest message: the last of these days will still change")
    return 0


def _city(store: Store, period: Period, sites: Sites, args: argparse.Namespace) -> Figure:
    """All sites of a city as one; on standard error, those that are silent. Raises ConfigError when all always were."""
    from edge_aggregate.figures import city_while_open, read

    members, weights = sites.weighed(args.city, args.weighting)
    reading = read(store, period)
    found = reading.city(args.city, members, weights)
    if found is None:
        msg = f"no window ever came from a site of {args.city}: {', '.join(members):.200}"
        raise ConfigError(msg)
    if found.silent:
        print(
            f"{args.city}: nothing came in this period from {', '.join(found.silent)}:"
            f" the other {found.sites - len(found.silent)} of {found.sites} sites are counted",
            file=sys.stderr,
        )
    return city_while_open(store, reading, found.figure, members, sites)


def _changes(store: Store, reading: Reading, place: tzinfo) -> list[dict[str, Any] | None]:
    """Each site's change since 28 days before; `shown` where it is not likely to be chance among so many sites."""
    from edge_aggregate.statistics import discoveries
    from edge_aggregate.sums import site_sums

    found = list(reading.changes(site_sums(store, reading.period.before(place), reading.sums)).values())
    shown = discoveries([None if one is None else one.best.p for one in found])
    return [
        None
        if one is None
        else {
            "of": "index" if one.corrected is None else "index_corrected",
            "by": one.best.by,
            "low": one.best.low,
            "high": one.best.high,
            "p": one.best.p,
            "shown": is_shown,
        }
        for one, is_shown in zip(found, shown, strict=True)
    ]


def _change(figure: Figure, change: dict[str, Any] | None) -> str:
    if change is None:
        return f"{figure.site}: nothing to compare with 28 days before"
    arrow = "no change shown" if not change["shown"] else "▲ happier" if change["by"] > 0 else "▼ less happy"
    return (
        f"{figure.site}: {arrow} against 28 days before: {100 * change['by']:+.1f} points "
        f"{'as read' if change['of'] == 'index' else 'corrected'} "
        f"({100 * change['low']:+.1f} to {100 * change['high']:+.1f})"
    )


def show(found: list[Figure], place: tzinfo, *, by_day: bool = False) -> None:
    """A table for people: shares in percent, times by the clock of `place`."""
    from edge_aggregate.decode import instant

    if not found:
        return
    rows: list[tuple[str, ...]] = [
        ("site", "happy of n", "as read, 95 % band", "corrected, 95 % band", "coverage", "reported", "windows", "state")
    ]
    if by_day:
        rows = [("day", *rows[0])]
    for f in found:
        day = (instant(f.start_ms).astimezone(place).date().isoformat(),) if by_day else ()
        rows.append(
            (
                *day,
                f.site,
                f"{f.happy} of {f.n}",
                _band(f.index, f.low, f.high),
                _band(f.index_corrected, f.low_corrected, f.high_corrected),
                "–" if f.coverage is None else f"{f.coverage:.0%}",
                "–" if f.reported is None else f"{f.reported:.0%}",
                _windows(f),
                f.state + (" *" if f.state == "provisional" else ""),
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    start, end = (instant(ms).astimezone(place) for ms in (found[0].start_ms, found[-1].end_ms))
    print(f"{start.isoformat(' ', 'minutes')} to {end.isoformat(' ', 'minutes')} ({place})")
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    if any(f.state == "provisional" for f in found):
        print("* not over, or not all of it has come: it will change")
    if any(f.unsynced for f in found):
        print("unsynced: counted by a clock that was not set: in no share")
    print(_LEGEND)


def _windows(f: Figure) -> str:
    notes = ((f.missing, "missing"), (f.duplicates, "doubled"), (f.unsynced, "unsynced"))
    return ", ".join([str(f.windows), *(f"{number} {word}" for number, word in notes if number)])


def _band(index: float | None, low: float | None, high: float | None) -> str:
    if index is None or low is None or high is None:
        return "–"
    return f"{100 * index:.1f} % ({100 * low:.1f} to {100 * high:.1f})"
