"""`edge-aggregate export`: figures, or dead letters, as CSV or Parquet."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.errors import ConfigError, SourceError
from edge_aggregate.commands.periods import add_period, asked_sites, read_period, read_place

if TYPE_CHECKING:
    import argparse


def add(commands: argparse._SubParsersAction[Any]) -> None:
    """Its arguments."""
    parser = commands.add_parser("export", help="figures by site and day, as CSV or Parquet")
    add_period(parser)
    parser.add_argument("--by", choices=("day", "period"), help="a row per local day (default), or one")
    parser.add_argument("--dead-letters", action="store_true", help="what was refused instead, with the reason")
    parser.add_argument("--out", type=Path, metavar="FILE", help="*.csv or *.parquet (default: CSV to standard output)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """A row per figure; the zone and the granularity stand in each."""
    from edge_aggregate.export import FIGURES, LETTERS, dead_letters, rows_of, write_csv, write_parquet
    from edge_aggregate.figures import figures, local_series
    from edge_aggregate.sites import read_sites
    from edge_aggregate.store import open_store

    if args.out is not None and args.out.suffix not in (".csv", ".parquet"):
        msg = f"--out {args.out}: name a file that ends in .csv or .parquet"
        raise ConfigError(msg)
    if args.dead_letters and any((args.last, args.start, args.end, args.site, args.zone, args.sites, args.by)):
        msg = "--dead-letters are all that are kept: leave out --last, --from, --to, --site, --sites, --zone and --by"
        raise ConfigError(msg)
    sites = read_sites(args.sites)
    place = read_place(args, sites)
    asked = asked_sites(args)
    with open_store(args.store, read_only=True) as store:
        if args.dead_letters:
            rows = dead_letters(store)
        else:
            period = read_period(args, store, place)
            whole = args.by == "period"
            found = figures(store, period, asked, sites) if whole else local_series(store, period, place, asked, sites)
            rows = rows_of(found, place, args.by or "day")
    columns = LETTERS if args.dead_letters else FIGURES
    if args.out is None:
        write_csv(rows, columns, sys.stdout)
    elif args.out.suffix == ".parquet":
        write_parquet(rows, columns, args.out)
    else:
        try:
            with args.out.open("w", encoding="utf-8", newline="") as file:
                write_csv(rows, columns, file)
        except OSError as error:
            msg = f"{args.out}: {error.strerror}: name a file in a folder that is there, with room"
            raise SourceError(msg) from error
    print(f"{len(rows)} rows", file=sys.stderr)
    return 0
