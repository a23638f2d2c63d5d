"""What a merge into PostgreSQL costs beside a bare COPY of the same rows, batch by batch, in one run.

    .venv/bin/python bench/postgres.py [--windows 60000] [--devices 200] [--batch 5000 20000] [--rounds 3]
        [--server ADDRESS]

Without `--server` (an empty database of a role that may make tables) a server of its own is started: Debian's, or the
one in EDGE_POSTGRES_BIN. Windows are decoded before the clock runs. Prints rows a second by the clock, and by the
processor time of both sides together, which is what an idle machine would do with one after the other.
"""

# ruff: noqa: S608 - its own names

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from edge_aggregate.decode import decode_line
from edge_aggregate.store import Batch, Progress, open_store
from edge_aggregate.store.schema import TABLES, WINDOW_COLUMNS
from subscribe import message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_TICK = os.sysconf("SC_CLK_TCK")


def decoded(windows: int, devices: int) -> list[Batch]:
    """One batch of all, in the order of time."""
    batch = Batch(Progress("made", windows, windows, "0" * 64))
    for number in range(windows):
        topic, payload = message(number, devices)
        received = json.loads(payload)["window"]["start"].replace("+00:00", "Z")
        batch.add(
            number + 1, decode_line(f'{{"topic": "{topic}", "received": "{received}", "payload": {payload}}}'.encode())
        )
    return [batch]


def cut(whole: Batch, size: int) -> list[Batch]:
    """The same in batches, each a segment."""
    batches = []
    for first in range(0, len(whole.rows), size):
        batch = Batch(Progress(f"segment-{first}", size, first, f"{first:064x}"))
        for number, (_, row) in enumerate(whole.rows[first : first + size], 1):
            batch.add(number, row)
        batches.append(batch)
    return batches


class Cost:
    """Seconds by the clock, and of processors: ours, the server's."""

    def __init__(self, backend: int) -> None:
        self._stat = Path(f"/proc/{backend}/stat")
        self._begun = self._now()

    def _now(self) -> tuple[float, float, float]:
        fields = self._stat.read_text().rpartition(")")[2].split() if self._stat.exists() else ["0"] * 20
        return time.perf_counter(), time.process_time(), (int(fields[11]) + int(fields[12])) / _TICK

    def taken(self) -> tuple[float, float, float]:
        """Since it was made."""
        return tuple(now - then for now, then in zip(self._now(), self._begun, strict=True))  # type: ignore[return-value]


@contextmanager
def servers(address: str | None) -> Iterator[Callable[[], str]]:
    """Addresses of empty databases."""
    if address is not None:
        yield lambda: address
        return
    sys.path.append(str(Path(__file__).parents[1]))
    from tests.support.postgres import Postgres, programs

    if programs() is None:
        sys.exit("no PostgreSQL: apt-get install postgresql, or set EDGE_POSTGRES_BIN")
    with Postgres(settings=("shared_buffers=256MB",)) as server:
        yield server.address


def measure(address: str, batches: list[Batch]) -> dict[str, tuple[float, float, float]]:
    """Of the merge, of COPY alone into a table of the same columns and keys, and of the merge into a file."""
    with open_store(address, create=True) as store:
        engine = store.engine
        ((backend,),) = engine.fetch("SELECT pg_backend_pid()")
        cost = Cost(backend)
        for batch in batches:
            store.merge([batch])
        found = {"merge": cost.taken()}
        names = ", ".join(WINDOW_COLUMNS)
        rows = engine.fetch(f"SELECT {names} FROM windows ORDER BY boot, seq")
        engine.run("DROP TABLE windows CASCADE")
        engine.run(next(sql for sql in TABLES if "CREATE TABLE windows" in sql))
        engine.run(next(sql for sql in TABLES if "CREATE INDEX windows_by_time" in sql))
        size = len(batches[0].rows)
        cost = Cost(backend)
        for first in range(0, len(rows), size):
            with engine.writing():
                engine.load("windows", WINDOW_COLUMNS, rows[first : first + size])
        found["COPY alone"] = cost.taken()
        engine.run("DROP SCHEMA public CASCADE")
        engine.run("CREATE SCHEMA public")
    with tempfile.TemporaryDirectory() as folder, open_store(f"{folder}/store.db", create=True) as store:
        cost = Cost(0)
        for batch in batches:
            store.merge([batch])
        found["merge into an SQLite file"] = cost.taken()
    return found


def main() -> int:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=60_000)
    parser.add_argument("--batch", type=int, nargs="+", default=[5_000, 20_000])
    parser.add_argument("--devices", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--server", help="postgresql://user@host/database, empty")
    args = parser.parse_args()
    (whole,) = decoded(args.windows, args.devices)
    print(f"{args.windows} windows of {args.devices} devices, medians of {args.rounds}")
    print("| batch | what | rows a second | rows a processor second | of them ours, the server's, µs a row |")
    print("|--:|---|--:|--:|--:|")
    with servers(args.server) as address:
        for size in args.batch:
            rounds = [measure(address(), cut(whole, size)) for _ in range(args.rounds)]
            for what in rounds[0]:
                wall, ours, theirs = (statistics.median(one[what][at] for one in rounds) for at in range(3))
                n = args.windows
                print(
                    f"| {size} | {what} | {n / wall:,.0f} | {n / (ours + theirs):,.0f}"
                    f" | {1e6 * ours / n:.1f}, {1e6 * theirs / n:.1f} |",
                    flush=True,
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
