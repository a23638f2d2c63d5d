"""Landing logs into a store of one file: rows a second, what a row costs as fleet and months grow, and memory.

    .venv/bin/python bench/ingest.py [--windows 60000] [--devices 200 2000 20000] [--days 60]

Windows of an hour, in the order of time, with 3 % of the lines twice; every rule is applied. Seconds of processor are
those of this process; by the clock, a shared machine says more of its neighbours.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

from edge_aggregate.ingest import ingest_files
from edge_aggregate.store import open_store
from subscribe import START, message


def write(path: Path, first: int, count: int, devices: int) -> None:
    """A segment: windows from the nth on, of hours one after the other."""
    made = [json.loads(message(number)[1]) for number in range(200)]  # drawn once: drawing is not what is measured
    with path.open("w") as file:
        for number in range(first, first + count):
            hour, device = divmod(number, devices)
            start = START + timedelta(hours=hour)
            site, name = f"site-{device % max(20, devices // 10)}", f"kiosk-{device:05}"
            payload = made[(number * 7) % 200] | {"site": site, "device": name, "boot_id": f"{device:032x}"}
            payload |= {
                "seq": hour + 1,
                "flush": hour % 24 == 23,
                "window": payload["window"] | {"start": f"{start:%FT%TZ}"},
            }
            received = start + timedelta(hours=1, milliseconds=device)
            line = json.dumps(
                {"topic": f"edge/v1/{site}/{name}/counts", "received": received.isoformat(), "payload": payload}
            )
            file.write(line + "\n")
            if number % 33 == 0:
                file.write(line + "\n")


def resident_mb() -> float:
    """Of this process, now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


def one_log(folder: Path, windows: int, devices: int) -> None:
    """A row of the table of fleets."""
    log = folder / f"{devices}.jsonl"
    write(log, 0, windows, devices)
    with open_store(str(folder / f"{devices}.db"), create=True) as store:
        begun, used = time.perf_counter(), time.process_time()
        done = ingest_files(store, [log])
        wall, took = time.perf_counter() - begun, time.process_time() - used
    print(
        f"| {devices} | {done.lines / wall:,.0f} | {done.lines / took:,.0f} | {1e6 * took / done.lines:.1f} |",
        flush=True,
    )


def months(folder: Path, days: int, devices: int = 200) -> None:
    """Day by day into one store; a row each ten days."""
    log = folder / "day.jsonl"
    with open_store(str(folder / "months.db"), create=True) as store:
        lines, took = 0, 0.0
        for day in range(days):
            log = folder / f"day-{day}.jsonl"
            write(log, day * 24 * devices, 24 * devices, devices)
            used = time.process_time()
            lines += ingest_files(store, [log]).lines
            took += time.process_time() - used
            log.unlink()
            if day % 10 == 9:
                print(f"| {day + 1} | {resident_mb():.0f} | {lines / took:,.0f} |", flush=True)
                lines, took = 0, 0.0


def main() -> int:
    """Print two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=60_000)
    parser.add_argument("--devices", type=int, nargs="+", default=[200, 2_000, 20_000])
    parser.add_argument("--days", type=int, default=60)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print("| devices | rows a second | rows a processor second | µs a row |\n|--:|--:|--:|--:|")
        for devices in args.devices:
            one_log(folder, args.windows, devices)
        print("\n| days of 200 devices | memory, MB | rows a processor second |\n|--:|--:|--:|")
        months(folder, args.days)
    return 0


if __name__ == "__main__":
    sys.exit(main())
