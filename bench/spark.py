"""A landing log into a store by a Spark cluster of this machine that loses an executor: seconds, processor, memory.

    .venv/bin/python bench/spark.py [--windows 120000] [--times 3] [--unharmed] [--log FOLDER]

`edge-aggregate ingest --runner spark` as anybody starts it, watched from without; an executor is killed once one of
its Python workers has decoded for a moment. Beside it one process does the same, and both stores must be equal, row by
row. `--log` keeps the log that is made for the next time.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAM = Path(sys.executable).with_name("edge-aggregate")
MASTER = "local-cluster[2,1,1024]"
HOURS = 304
SEGMENTS = 100
WORKED_S = 1.0
"""Processor seconds after which a Python worker has surely begun to decode."""
_TICK = os.sysconf("SC_CLK_TCK")


def make_log(folder: Path, windows: int) -> None:
    """A fleet's hours with 3 % of them twice, 5 % late, gaps, conflicts and hostile lines; shuffled over segments."""
    command = [str(PROGRAM), "simulate", "--out", str(folder / "ordered"), "--devices", str(-(-windows // 300))]
    command += ["--minutes", str(60 * HOURS), "--start", "2026-03-02T00:00:00Z", "--outages", "0", "--late", ".05"]
    command += ["--duplicates", ".03", "--lost", ".01", "--conflicts", ".002", "--hostile", ".003"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    ordered = sorted((folder / "ordered").rglob("*.jsonl"))
    lines = [line for path in ordered for line in path.read_bytes().splitlines(keepends=True)]
    random.Random(1).shuffle(lines)  # noqa: S311 - no secret
    for number in range(SEGMENTS):
        (folder / f"{number:04}.jsonl").write_bytes(b"".join(lines[number::SEGMENTS]))
    for path in ordered:
        path.unlink()


@dataclass
class Watch:
    """What a tree of processes took, and which executor of it was killed."""

    kill: bool
    peak_mib: float = 0.0
    killed: int = 0
    processors: dict[int, float] = field(default_factory=dict)

    def look(self, root: int) -> None:
        """Now."""
        tree = dict(_tree(root, 0))
        sizes = [_read(f"/proc/{pid}/smaps_rollup").partition("Pss:")[2].split() for pid in tree]
        self.peak_mib = max(self.peak_mib, sum(int(size[0]) for size in sizes if size) / 1024)
        for pid in tree:
            stat = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
            if stat:
                self.processors[pid] = (int(stat[11]) + int(stat[12])) / _TICK
        for worker, daemon in tree.items():
            # An executor starts a daemon, which forks a worker for each task at a time.
            executor = tree.get(daemon, 0)
            works = self.processors.get(worker, 0) > WORKED_S
            if self.kill and not self.killed and works and _is_executor(executor):
                os.kill(executor, signal.SIGKILL)
                self.killed = executor


def _tree(pid: int, parent: int) -> Iterator[tuple[int, int]]:
    """A process and all below it, each with its parent."""
    yield pid, parent
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in _read(str(task)).split():
            yield from _tree(int(child), pid)


def _is_executor(pid: int) -> bool:
    return "CoarseGrainedExecutorBackend" in _read(f"/proc/{pid}/cmdline")


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:  # it has ended
        return ""


def ingest(log: Path, store: Path, *more: str, kill: bool = False) -> tuple[float, float, float]:
    """Seconds by the clock, of processors, and MiB in all processes at most."""
    watch, begun = Watch(kill), time.monotonic()
    command = [str(PROGRAM), "ingest", "--files", f"{log}/*.jsonl", "--store", str(store), "--quiet", *more]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            watch.look(process.pid)
            time.sleep(0.3)
    seconds = time.monotonic() - begun
    if process.returncode:
        sys.exit(f"{' '.join(command)}: exit code {process.returncode}")
    if kill and not watch.killed:
        sys.exit("no executor was caught at work: give more windows")
    return seconds, sum(watch.processors.values()), watch.peak_mib


def digest(path: Path) -> str:
    """Of all that counts in a store: its windows, the sums of days, and how many lines were refused."""
    told = hashlib.sha256()
    with sqlite3.connect(path) as store:
        for query in (
            (
                "SELECT d.name, b.boot_id, s.name, w.* FROM windows w JOIN boots b ON b.id = w.boot"
                " JOIN devices d ON d.id = b.device JOIN sites s ON s.id = w.site ORDER BY 1, 2, w.seq"
            ),
            (
                "SELECT d.name, s.name, y.* FROM days y JOIN devices d ON d.id = y.device"
                " JOIN sites s ON s.id = y.site ORDER BY 1, 2, y.day, y.windows, y.terms, y.quality"
            ),
            "SELECT kind, lines FROM dead_kinds ORDER BY 1",
        ):
            found = store.execute(query)
            # Ids are given in the order of reading, which is the cluster's own.
            names = [column[0] for column in found.description]
            kept = [at for at, name in enumerate(names) if name not in IDS]
            for row in found:
                told.update(repr([row[at] for at in kept]).encode())
    return told.hexdigest()


IDS = {"boot", "site", "terms", "prev_boot", "segment", "line", "device"}


def main() -> int:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=120_000)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--unharmed", action="store_true", help="kill no executor")
    parser.add_argument("--log", type=Path, help="folder of the log")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        log = args.log or folder / "log"
        if not [*log.glob("*.jsonl")]:
            log.mkdir(parents=True, exist_ok=True)
            make_log(log, args.windows)
        print("| runner | seconds | processor seconds | MiB, all processes |\n|---|--:|--:|--:|")
        rows: dict[str, list[tuple[float, float, float]]] = {"one process": [], f"spark, {MASTER}": []}
        for turn in range(args.times):
            stores = [folder / f"{turn}-{at}.db" for at in range(2)]
            for (runner, took), store in zip(rows.items(), stores, strict=True):
                spark = runner.startswith("spark")
                more = ("--runner", "spark", "--master", MASTER) if spark else ()
                took.append(ingest(log, store, *more, kill=spark and not args.unharmed))
                print(f"{runner}: {took[-1][0]:.1f} s", file=sys.stderr, flush=True)
            if digest(stores[0]) != digest(stores[1]):
                sys.exit("the two stores differ")
            for store in stores:
                store.unlink()
        for runner, took in rows.items():
            print(
                f"| {runner} | " + " | ".join(f"{statistics.median(one):.0f}" for one in zip(*took, strict=True)) + " |"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
