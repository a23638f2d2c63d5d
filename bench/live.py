"""What watching a live camera costs a second, by how many frames of it are looked at: `camera.max_fps`.

    .venv/bin/python bench/live.py [--seconds N] [--rounds N]

A networked camera on loopback sends 1280×720 thirty times a second, an empty wall or two heads that sway; the vision
service watches it for so many seconds, in turn with each `max_fps`, in a process of its own. Prints a Markdown table of
medians and ranges: frames looked at a second, processor ms a second of watching, faces a frame, peak resident memory.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the camera is the tests'

from growth import film
from material import configure, median_range

from edge.bundle.newest import newest_bundle
from edge.config import load
from edge.vision.service import Vision
from tests.support.rtsp_server import RtspCamera

if TYPE_CHECKING:
    from edge.types import U8

ROOT: Final = Path(__file__).resolve().parents[1]

CAMERA_FPS: Final = 30
MOSTS: Final = (30, 15, 8)
WARM: Final = 4.0
"""Seconds that are left out: start, and everything new."""


def watch(config: Path, seconds: float) -> dict[str, float]:
    """Figures of watching, measured in this process."""
    logging.disable(logging.CRITICAL)
    seen: list[tuple[float, float, int]] = []
    run = Vision(
        load(config), on_frame=lambda _, tracks: seen.append((time.monotonic(), time.process_time(), len(tracks)))
    )
    timer = threading.Timer(WARM + seconds, run.stop)
    timer.start()
    run.run()
    after = [one for one in seen if one[0] > seen[0][0] + WARM]
    took, busy = (after[-1][k] - after[0][k] for k in (0, 1))
    peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
    return {
        "frames a second": (len(after) - 1) / took,
        "processor ms a second": 1000 * busy / took,
        "faces a frame": statistics.mean(faces for _, _, faces in after),
        "peak MiB": peak,
    }


def measured(images: list[U8], most: int, seconds: float) -> dict[str, float]:
    """The same of a process of its own."""
    with RtspCamera(images, fps=CAMERA_FPS) as camera, tempfile.TemporaryDirectory() as name:
        bundle = newest_bundle(ROOT / "models") or sys.exit("no model bundle in models/")
        lines = f'kind = "rtsp"\nsource = "{camera.url}"\nmax_fps = {most}'
        config = configure(Path(name), None, bundle, camera=lines, window_s=7200)
        asked = [sys.executable, __file__, "--watch", str(config), "--seconds", str(seconds)]
        done = subprocess.run(asked, check=True, capture_output=True, text=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--watch", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.watch:
        print(json.dumps(watch(args.watch, args.seconds)))
        return 0
    scenes = {f"{faces} faces": list(film(faces, (1280, 720), 2 * CAMERA_FPS)) for faces in (0, 2)}
    found: dict[tuple[str, int], dict[str, list[float]]] = {}
    for number in range(args.rounds):
        print(f"round {number + 1} of {args.rounds} …", file=sys.stderr)
        for scene, images in scenes.items():
            for most in MOSTS[:: 1 if number % 2 else -1]:
                for figure, value in measured(images, most, args.seconds).items():
                    found.setdefault((scene, most), {}).setdefault(figure, []).append(value)
    print(f"{args.rounds} rounds, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores.\n")
    print("| scene | `max_fps` | " + " | ".join(next(iter(found.values()))) + " |\n|---|--:|--:|--:|--:|--:|")
    for (scene, most), figures in found.items():
        print(f"| {scene} | {most} | " + " | ".join(map(median_range, figures.values())) + " |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
