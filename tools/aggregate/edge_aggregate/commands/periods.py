"""What every command that shows figures takes: a store, a period, sites, a zone."""

from __future__ import annotations

from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING

from edge.errors import ConfigError

if TYPE_CHECKING:
    import argparse
    from datetime import tzinfo

    from edge_aggregate.periods import Period
    from edge_aggregate.sites import Sites
    from edge_aggregate.store import Store


def add_period(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.add_argument("--store", required=True, metavar="ADDRESS", help="an SQLite file, or postgresql://…")
    parser.add_argument("--site", action="append", metavar="ID", help="a site, or all (default); may be said again")
    parser.add_argument("--last", metavar="7d", help="hours, days or weeks back from the newest message (default: 7d)")
    parser.add_argument("--from", dest="start", metavar="TIME", help="a date, or an instant with its offset")
    parser.add_argument(
        "--to", dest="end", metavar="TIME", help="the first that is left out (default: now, by the log)"
    )
    parser.add_argument(
        "--zone", metavar="NAME", help="whose midnights dates and days are (default: the site's own; of several, UTC)"
    )
    parser.add_argument("--sites", type=Path, metavar="FILE", help="the sites file: zones, cities, opening hours")


def asked_sites(args: argparse.Namespace) -> list[str] | None:
    """The sites that were named, each once; None: all."""
    return None if not args.site or "all" in args.site else list(dict.fromkeys(args.site))


def read_place(args: argparse.Namespace, sites: Sites) -> tzinfo:
    """The zone that was named, else the one that all sites asked for share, else UTC."""
    from edge_aggregate.periods import zone

    if args.zone is not None:
        return zone(args.zone)
    asked = asked_sites(args) or sites.cities.get(getattr(args, "city", None) or "", [])
    zones = {sites[site].zone for site in asked}
    return zone(zones.pop()) if len(zones) == 1 else UTC


def read_period(args: argparse.Namespace, store: Store, place: tzinfo) -> Period:
    """The period that was named. Raises ConfigError."""
    from edge.contract import utc_text
    from edge_aggregate.decode import instant
    from edge_aggregate.periods import Period, last, moment

    if args.start is None:
        if args.end is not None:
            msg = "--to needs --from"
            raise ConfigError(msg)
        return last(args.last or "7d", store.newest_ms)
    if args.last is not None:
        msg = "give --last or --from, not both"
        raise ConfigError(msg)
    start, newest_ms = moment(args.start, place), store.newest_ms
    if args.end is not None:
        return Period(start, moment(args.end, place))
    if newest_ms and start >= newest_ms:
        msg = f"--from {args.start}: nothing is newer than {utc_text(instant(newest_ms))}: give a time before it"
        raise ConfigError(msg)
    return Period(start, max(newest_ms, start + 1))  # of an empty store: nothing, whenever
