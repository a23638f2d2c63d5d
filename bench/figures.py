"""What figures and pages cost over a store of many sites: processor time, medians, and how it grows.

    .venv/bin/python bench/figures.py [--days 90] [--sites 100 300 1000]

The store holds the table of days alone, made at random: what whole days are read from. Pages are asked twice, as a
reader who comes first after a merge does, and as all others do.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from edge_aggregate.calibration import read_manifest
from edge_aggregate.figures import figures
from edge_aggregate.periods import Period
from edge_aggregate.sites import read_sites
from edge_aggregate.store import open_store
from edge_aggregate.store.days import DAY_MS
from edge_aggregate.store.schema import CELL_COLUMNS, DAY_COLUMNS
from edge_aggregate.sums import site_sums
from edge_aggregate.web.app import make_app
from starlette.testclient import TestClient

if TYPE_CHECKING:
    from collections.abc import Callable

MANIFEST = Path(__file__).resolve().parents[1] / "models" / "fer-2026.11" / "manifest.json"
FIRST_DAY = 20_000
TERMS = (
    *("id", "mechanism", "epsilon", "unit", "min_count", "exhausted"),
    *("gate", "fer_unmasked", "fer_masked", "strategy"),
)


def fill(path: Path, sites: int, days: int) -> None:
    """A store of one kiosk a site, 24 windows and some hundred votes a day."""
    rng = Random(1)  # noqa: S311 - no secret
    tables = {table.role: table for table in read_manifest(MANIFEST)}
    with open_store(str(path), create=True) as store:
        store.register(tables.values())
        end_ms = (FIRST_DAY + days) * DAY_MS
        with store.engine.writing():
            load = store.engine.load
            load("sites", ("id", "name"), [(n, f"site-{n:04d}") for n in range(sites)])
            load("devices", ("id", "name"), [(n, f"kiosk-{n:04d}") for n in range(sites)])
            columns = (
                "id",
                "device",
                "boot_id",
                "top_seq",
                "floor_seq",
                "closed_ms",
                "last_start_ms",
                "first_received_ms",
            )
            load("boots", columns, [(n, n, f"{n:032x}", 24 * days, 0, end_ms, end_ms, 0) for n in range(sites)])
            row = (1, "discrete-laplace", 1.0, "one class per track per window", 10, 0, None)
            digests = (tables["fer_unmasked"].digest, tables["fer_masked"].digest)
            load("terms", TERMS, [(*row, *digests, "gate")])
            rows = []
            for site in range(sites):
                for day in range(FIRST_DAY, FIRST_DAY + days):
                    cells = [rng.randrange(0, 60) for _ in CELL_COLUMNS]
                    draws = [rng.randrange(20, 25) for _ in CELL_COLUMNS]
                    came = ((day + 1) * DAY_MS - 3_600_000, (day + 1) * DAY_MS + 1_000)
                    rows.append((site, day, site, 1, 0, 24, 0, DAY_MS, 86_000_000_000, *cells, *draws, *came))
            load("days", DAY_COLUMNS, rows)
            store.engine.run("INSERT INTO meta VALUES ('newest_ms', ?)", (end_ms + 2_000,))


def timed(work: Callable[[], Any], times: int = 7) -> float:
    """Median processor milliseconds."""
    taken = []
    for _ in range(times):
        begun = time.process_time()
        work()
        taken.append(1000 * (time.process_time() - begun))
    return statistics.median(taken)


def measure(path: Path, period: Period) -> list[float]:
    """A cost for each column of the table."""
    with open_store(str(path), read_only=True) as store:
        costs = [
            timed(lambda: site_sums(store, period)),
            timed(lambda: figures(store, period)),
            timed(lambda: figures(store, period, ["site-0001"])),
        ]

    def first(url: str) -> None:
        with TestClient(make_app(str(path), read_sites(None))) as client:
            client.get(url).raise_for_status()

    costs += [timed(partial(first, url), 3) for url in ("/?last=90d", "/site/site-0001?last=90d")]
    with TestClient(make_app(str(path), read_sites(None))) as client:
        client.get("/?last=90d")
        return [*costs, timed(lambda: client.get("/?last=90d"))]


def main() -> int:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=90)
    parser.add_argument("--sites", type=int, nargs="+", default=[100, 300, 1000])
    args = parser.parse_args()
    print(f"{args.days} days, processor ms, medians of 7")
    print("| sites | sums of all | figures of all | figure of one | page of all, first | page of one, first | again |")
    print("|--:|--:|--:|--:|--:|--:|--:|")
    for sites in args.sites:
        with tempfile.TemporaryDirectory() as name:
            path = Path(name) / "store.db"
            fill(path, sites, args.days)
            costs = measure(path, Period(FIRST_DAY * DAY_MS, (FIRST_DAY + args.days) * DAY_MS))
        print(f"| {sites} | " + " | ".join(f"{cost:.1f}" for cost in costs) + " |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
