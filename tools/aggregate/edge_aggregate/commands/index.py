"""`edge-aggregate index`: the happiness index of sites, or of a city, in a period."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from edge.errors import ConfigError

if TYPE_CHECKING:
    import argparse

    from edge_aggregate.figures import Figure
    from edge_aggregate.periods import Period
    from edge_aggregate.store import Store


def add(commands: argparse._SubParsersAction[Any]) -> None:
    """Its arguments."""
    parser = commands.add_parser("index", help="the happiness index of sites in a period, with its band")
    add_period(parser)
    parser.add_argument(
        "--site", action="append", metavar="ID", help="a site, or all; may be said again (default: all)"
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(run=run)


def add_period(parser: argparse.ArgumentParser) -> None:
    """The store and the period: what every command that shows figures takes."""
    parser.add_argument("--store", required=True, metavar="ADDRESS", help="an SQLite file, or postgresql://…")
    parser.add_argument("--last", metavar="7d", help="hours, days or weeks back from the newest message (default: 7d)")
    parser.add_argument("--from", dest="start", metavar="TIME", help="a date, or an instant with its offset")
    parser.add_argument(
        "--to", dest="end", metavar="TIME", help="the first that is left out (default: now, by the log)"
    )
    parser.add_argument("--zone", default="UTC", metavar="NAME", help="whose midnights dates are (default: UTC)")


def read_period(args: argparse.Namespace, store: Store) -> Period:
    """What `add_period` was given. Raises ConfigError."""
    from edge_aggregate.periods import Period, last, moment, zone

    place = zone(args.zone)
    if args.start is None:
        if args.end is not None:
            msg = "--to needs --from"
            raise ConfigError(msg)
        return last(args.last or "7d", store.newest_ms)
    if args.last is not None:
        msg = "give --last or --from, not both"
        raise ConfigError(msg)
    end = store.newest_ms if args.end is None else moment(args.end, place)
    return Period(moment(args.start, place), end)


def run(args: argparse.Namespace) -> int:
    """A row per site."""
    from edge_aggregate.figures import figures
    from edge_aggregate.store import open_store

    with open_store(args.store, read_only=True) as store:
        period = read_period(args, store)
        sites = None if not args.site or "all" in args.site else args.site
        found = figures(store, period, sites)
    if args.json:
        print(json.dumps([figure.json() for figure in found]))
        return 0
    show(found)
    return 0


def show(found: list[Figure]) -> None:
    """A table for people: shares in percent."""
    if not found:
        print("no windows in this period")
        return
    rows = [("site", "happy of n", "as read, 95 % band", "corrected, 95 % band", "coverage", "windows", "state")]
    for f in found:
        seen = "–" if f.coverage is None else f"{f.coverage:.0%}"
        windows = f"{f.windows}" + "".join(
            f", {number} {word}"
            for number, word in ((f.missing, "missing"), (f.duplicates, "doubled"), (f.unsynced, "unsynced"))
            if number
        )
        rows.append(
            (
                f.site,
                f"{f.happy} of {f.n}",
                _band(f.index, f.low, f.high),
                _band(f.index_corrected, f.low_corrected, f.high_corrected),
                seen,
                windows,
                f.state + (" *" if f.state == "provisional" else ""),
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    first = found[0].json()
    print(f"{first['from']} to {first['to']}")
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    if any(f.state == "provisional" for f in found):
        print("* not over, or not all of it has come: it will change")


def _band(index: float | None, low: float | None, high: float | None) -> str:
    if index is None or low is None or high is None:
        return "–"
    return f"{100 * index:.1f} % ({100 * low:.1f} to {100 * high:.1f})"
