"""How windows, outbox and publisher grow with what waits: a month without a broker, then one that takes all.

    .venv/bin/python bench/backlog.py [--windows N ...] [--plot FILE]

For each N (720: a month of hours; 8,640: of five minutes) an outbox is filled by vision's own commits, the publisher's
process is started beside a Mosquitto (`mosquitto`) with one subscriber, and stopped once all is acknowledged. Prints a
Markdown table. Nothing is quadratic where a window costs the same at each N: compare the columns "a window". Processor
time and bytes are counted from the start to the last acknowledgement; memory is the peak.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from statistics import median
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # broker and windows are the tests'

from edge.outbox.outbox import Outbox
from edge.types import Vote
from edge.vision.privacy import Policy
from tests.support.appliance import closing, vision
from tests.support.broker import Mosquitto
from tests.support.wire import Ear, Service

NOISY = Policy("discrete-laplace", Fraction(1), 10)


class Found(NamedTuple):
    """Of one backlog."""

    windows: int
    first_ms: float
    """Processor time of a commit, median of the first hundred, …"""
    last_ms: float
    """… and of the last."""
    megabytes: float
    """Of the outbox's files when all waits."""
    start_s: float
    """Until the first is acknowledged, which includes the start of the process."""
    drain_s: float
    busy_s: float
    peak_mb: float
    written: float
    """Bytes that the publisher had written, by the kernel's count."""


def fill(folder: Path, windows: int) -> tuple[list[float], float]:
    """Processor milliseconds of each commit, and megabytes of what lies there then."""
    rng, spent = random.Random(1), []  # noqa: S311 - no secret
    end = datetime.now(UTC) - timedelta(days=30)
    with vision(folder) as outbox:
        for _ in range(windows):
            end += timedelta(days=30) / windows
            votes = [Vote("unmasked", rng.choice(("happy", "neutral"))) for _ in range(30)]
            close = closing(votes, NOISY, end=end, seconds=min(3600.0, 30 * 86400 / windows))
            began = time.process_time()
            outbox.commit(close)
            spent.append(1000 * (time.process_time() - began))
    return spent, sum(file.stat().st_size for file in folder.glob("outbox.db*")) / 1e6


def drain(folder: Path, windows: int) -> tuple[float, float, float, float, float]:
    """(s to the first, s from there to the last, processor s, peak MB, bytes written) of the publisher."""
    with Mosquitto(folder) as broker, Ear(broker.port, "edge/v1/lobby/kiosk-07/counts") as ear:
        began, first = time.monotonic(), 0.0
        with Service(folder, broker.port) as service, Outbox(folder / "outbox.db") as outbox:
            proc = Path(f"/proc/{service.process.pid}")
            while len(ear.heard) < windows or outbox.stats().unsent:
                first = first or (time.monotonic() if ear.heard else 0.0)
                if service.process.poll() is not None:
                    raise SystemExit(service.lines())
                time.sleep(0.2)
            ended = time.monotonic()
            busy = sum(map(int, (proc / "stat").read_text().rsplit(")", 1)[1].split()[11:13]))
            peak = int((proc / "status").read_text().split("VmHWM:")[1].split()[0]) / 1024
            written = int((proc / "io").read_text().split("write_bytes:")[1].split()[0])
            service.stop()
    first = first or ended
    return first - began, ended - first, busy / os.sysconf("SC_CLK_TCK"), peak, written


def measure(windows: int) -> Found:
    """One backlog."""
    with tempfile.TemporaryDirectory() as name:
        spent, size = fill(Path(name), windows)
        started, seconds, busy, peak, written = drain(Path(name), windows)
    ends = median(spent[:100]), median(spent[-100:])
    return Found(windows, *ends, size, started, seconds, busy, peak, written)


def plot(found: list[Found], path: Path) -> None:
    """Time, memory and size over windows that wait."""
    import matplotlib as mpl

    mpl.use("svg" if path.suffix == ".svg" else "agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(10, 3), layout="constrained")
    for axis, title, values in zip(
        axes,
        ("publisher, processor s until all is sent", "publisher, peak MB", "outbox, MB"),
        ([f.busy_s for f in found], [f.peak_mb for f in found], [f.megabytes for f in found]),
        strict=True,
    ):
        axis.plot([f.windows for f in found], values, marker="o")
        axis.set(title=title, xlabel="windows that wait", ylim=(0, 1.15 * max(values)))
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, nargs="+", default=[72, 720, 2160, 4320, 8640])
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    print(
        "| windows | a commit, processor ms: first, last 100 | outbox MB, bytes a window | first sent after, s ", end=""
    )
    print("| all sent, s | publisher, processor s, ms a window | peak MB | written MB, bytes a window |")
    print("|--:|---|---|--:|--:|---|--:|---|", flush=True)
    found = []
    for windows in args.windows:
        f = measure(windows)
        found.append(f)
        size, written = 1e6 * f.megabytes / windows, f.written / windows
        print(
            f"| {windows:,} | {f.first_ms:.2f}, {f.last_ms:.2f} | {f.megabytes:.2f}, {size:,.0f} "
            f"| {f.start_s:.1f} | {f.drain_s:.1f} | {f.busy_s:.2f}, {1000 * f.busy_s / windows:.2f} | {f.peak_mb:.1f} "
            f"| {f.written / 1e6:.2f}, {written:,.0f} |",
            flush=True,
        )
    if args.plot:
        plot(found, args.plot)
    print(f"\nLoad {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
