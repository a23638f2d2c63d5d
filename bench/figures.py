"""What figures and pages cost over a store of many sites: processor time, medians, and how it grows.

    .venv/bin/python bench/figures.py [--days 90] [--sites 100 300 1000] [--store FOLDER]

Pages are asked as a reader does who comes first after a merge, and again, as all others do. `--store` keeps the store
that is made for the next time.
"""

# ruff: noqa: S608 - its own names and numbers

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_aggregate.calibration import read_manifest
from edge_aggregate.figures import figures
from edge_aggregate.periods import Period, last
from edge_aggregate.sites import read_sites
from edge_aggregate.store import open_store
from edge_aggregate.store.days import DAY_MS, renew_spans, write_days
from edge_aggregate.store.schema import CELL_COLUMNS
from edge_aggregate.sums import site_sums
from edge_aggregate.web.app import make_app
from starlette.testclient import TestClient

if TYPE_CHECKING:
    from collections.abc import Callable

MANIFEST = next(Path(__file__).resolve().parents[1].glob("models/*/manifest.json"))
FIRST_DAY = 20_000
HOUR_MS = 3_600_000
HOURS_OF_TODAY = 10


def fill(path: Path, sites: int, days: int) -> None:
    """A store of one kiosk a site that counts by the hour, some votes in each, and is emptied at midnight."""
    tables = {table.role: table for table in read_manifest(MANIFEST)}
    digests = (tables["fer_unmasked"].digest, tables["fer_masked"].digest)
    hours, start_ms = 24 * days + HOURS_OF_TODAY, FIRST_DAY * DAY_MS
    with open_store(str(path), create=True) as store:
        store.register(tables.values())
        run = store.engine.run
        with store.engine.writing():
            run("INSERT INTO segments VALUES (1, 'made', 1, 1, '')")
            run(
                f"INSERT INTO terms VALUES ({', '.join('?' * 10)})",
                (1, "discrete-laplace", 1.0, "one class per track per window", 10, 0, None, *digests, "gate"),
            )
            run(f"CREATE TEMP TABLE places AS {_counted(sites)}")
            run(f"CREATE TEMP TABLE hours AS {_counted(hours)}")
            for kind in ("site", "kiosk"):
                run(
                    f"INSERT INTO {'sites' if kind == 'site' else 'devices'}"
                    f" SELECT n, '{kind}-' || substr('000' || n, -4) FROM places"
                )
            run(
                "INSERT INTO boots SELECT n, n, printf('%032x', n), ?, 0, ?, ?, ? FROM places",
                (hours, start_ms + days * DAY_MS, start_ms + (hours - 1) * HOUR_MS, start_ms + HOUR_MS),
            )
            # Scattered, and the same each time: products of primes.
            of_cell = [
                f"CASE WHEN f OR s * {7919 + 2 * c} % 97 * (h + {c}) % 101 < 60"
                f" THEN (s * 31 + h * {104_729 + 2 * c}) % 50 END"
                for c in range(len(CELL_COLUMNS))
            ]
            of_draw = [
                f"CASE WHEN f OR s * {7919 + 2 * c} % 97 * (h + {c}) % 101 < 60 THEN 1 + (s + h) % 3 ELSE 0 END"
                for c in range(len(CELL_COLUMNS))
            ]
            run(
                f"INSERT INTO windows SELECT s, h + 1, s, 1, ? + h * {HOUR_MS}, 3600.0, {HOUR_MS}, 0, 0.98, 3528000000,"
                f" 0, f, 0, NULL, NULL, ? + (h + 1) * {HOUR_MS}, 0, 1, s * {hours} + h,"
                f" {', '.join(of_cell + of_draw)}"
                " FROM (SELECT p.n AS s, t.n AS h, t.n % 24 = 23 AS f FROM places p, hours t ORDER BY p.n, t.n)",
                (start_ms, start_ms),
            )
            for site in range(sites):
                write_days(store.engine, {}, {(site, day) for day in range(FIRST_DAY, FIRST_DAY + days + 1)})
            run("INSERT INTO meta VALUES ('newest_ms', ?)", (start_ms + hours * HOUR_MS,))
            renew_spans(store.engine, ())


def _counted(top: int) -> str:
    return f"WITH RECURSIVE c(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM c WHERE n < {top - 1}) SELECT n FROM c"


def timed(work: Callable[[], Any], times: int = 7) -> float:
    """Median processor milliseconds."""
    taken = []
    for _ in range(times):
        begun = time.process_time()
        work()
        taken.append(1000 * (time.process_time() - begun))
    return statistics.median(taken)


def measure(path: Path, days: int, sites: int) -> list[float]:
    """A cost for each column of the table."""
    whole = Period(FIRST_DAY * DAY_MS, (FIRST_DAY + days) * DAY_MS)
    with open_store(str(path), read_only=True) as store:
        cut = last(f"{days}d", store.newest_ms)
        costs = [
            timed(lambda: site_sums(store, whole)),
            timed(lambda: figures(store, whole)),
            timed(lambda: figures(store, cut)),
            timed(lambda: figures(store, whole, ["site-0001"])),
        ]
    places = path.with_name("sites.toml")
    places.write_text(
        "".join(
            f'[sites.site-{n:04d}]\ncity = "city-{n % 20}"\n'
            f"latitude = {n % 120 - 55}\nlongitude = {n * 7 % 340 - 170}\n"
            for n in range(sites)
        )
    )
    asked = ((None, "/?last=90d"), (places, "/?last=90d"), (None, "/site/site-0001?last=90d"))
    costs += [statistics.median(page(path, file, url) for _ in range(3)) for file, url in asked]
    with TestClient(make_app(str(path), read_sites(None))) as client:
        client.get("/?last=90d")
        return [*costs, timed(lambda: client.get("/?last=90d"))]


def page(path: Path, places: Path | None, url: str) -> float:
    """Processor milliseconds of a page that nobody has asked for since the last merge."""
    with TestClient(make_app(str(path), read_sites(places))) as client:
        client.get("/?last=24h")  # a running server has its templates
        begun = time.process_time()
        client.get(url).raise_for_status()
        return 1000 * (time.process_time() - begun)


def main() -> int:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=90)
    parser.add_argument("--store", type=Path, help="folder of stores")
    parser.add_argument("--sites", type=int, nargs="+", default=[100, 300, 1000])
    args = parser.parse_args()
    print(f"{args.days} days, processor ms, medians of 7")
    print(
        "| sites | sums, whole days | figures | figures, back from now | of one site | page of all"
        " | with map and cities | page of one | again |"
    )
    print("|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
    for sites in args.sites:
        with tempfile.TemporaryDirectory() as name:
            path = (args.store or Path(name)) / f"figures-{sites}-{args.days}.db"
            if not path.exists():
                fill(path, sites, args.days)
            costs = measure(path, args.days, sites)
        print(f"| {sites} | " + " | ".join(f"{cost:.1f}" for cost in costs) + " |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
