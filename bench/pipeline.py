"""Speed and memory of the appliance on one clip, side by side in one run.

    .venv/bin/python bench/pipeline.py [CLIP] [--rounds N]

Prints a Markdown table: frames per second and ms per stage of the whole pipeline, its overhead over the bare
kernels (decode, detector, invokes called in a plain loop on the same frames and chips), resident memory of each
service, and the time from start to the first frame. Rounds alternate; medians are reported.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from edge import config as settings
from edge.bundle.manifest import load_bundle
from edge.commands.demo.clip import compose
from edge.inference.cpu import CpuBackend
from edge.outbox.runtime_files import read_vision
from edge.vision.detect.choose import chosen_kind, detector_roles, open_detector
from edge.vision.preprocess import MIN_FACE, chip
from edge.vision.route import ROLES, Router
from edge.vision.service import Vision

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge.types import Frame, Track


def configure(folder: Path, clip: Path, bundle: Path, *, loop: bool = False) -> Path:
    """Write a configuration whose files lie in `folder`."""
    path = folder / "config.toml"
    path.write_text(
        f"""[device]
id = "bench"
site = "bench"
purpose = "benchmark"
mode = "development"
[camera]
kind = "replay"
source = '{clip}'
loop = {str(loop).lower()}
[models]
bundle = '{bundle}'
[window]
seconds = 5
[mqtt]
host = "127.0.0.1"
port = 9
[storage]
outbox = "outbox.db"
runtime = "run"
""",
        encoding="utf-8",
    )
    return path


def bare(clip: Path, bundle: Path, routed: list[tuple[np.ndarray, list[str]]]) -> float:
    """Seconds for decode + detector + the same invokes as the pipeline made, nothing between them."""
    loaded = load_bundle(bundle)
    backend = CpuBackend(loaded, (*detector_roles(loaded, "auto"), *ROLES["gate"]))
    detector = open_detector(loaded, "auto", backend)
    capture = cv2.VideoCapture(str(clip))
    began = time.perf_counter()
    for chips, routes in routed:
        _, image = capture.read()
        detector.detect(image.astype(np.uint8, copy=False))
        if len(chips):
            router = Router(backend, "gate")
            router.masked(chips)
            router.expressions(chips, ["masked" if r == "masked" else "unmasked" for r in routes])
    return time.perf_counter() - began


def whole(config: settings.Config) -> tuple[float, dict[str, float], list[tuple[np.ndarray, list[str]]]]:
    """(seconds of `Vision.run`, ms per stage, chips and routes of each frame)."""
    routed: list[tuple[np.ndarray, list[str]]] = []
    service = Vision(config)
    loaded = load_bundle(config.models.bundle)
    crop = loaded.crop(chosen_kind(loaded, config.detector.kind))
    began = time.perf_counter()
    service.run()
    seconds = time.perf_counter() - began
    figures = read_vision(config.storage.runtime)
    stages = figures.development.stage_ms if figures and figures.development else {}

    def remember(frame: Frame, tracks: Sequence[Track]) -> None:
        boxes = [t.box for t in tracks if t.box.w >= MIN_FACE]
        chips = [chip(frame.image, b, crop) for b in boxes]
        stack = np.stack(chips) if chips else np.empty((0, 48, 48), np.uint8)
        routed.append((stack, [t.route for t in tracks]))

    Vision(config, on_frame=remember).run()  # untimed: what the bare loop is to invoke
    return seconds, stages, routed


def resident(folder: Path, config: Path) -> tuple[float, dict[str, float]]:
    """(seconds from start to the first frame, peak resident MB of each service) of real processes."""
    vision = subprocess.Popen(
        [sys.executable, "-m", "edge", "vision", "--config", str(config)], stderr=subprocess.DEVNULL
    )
    began = time.perf_counter()
    first = None
    while first is None and time.perf_counter() - began < 60:
        figures = read_vision(folder / "run")
        if figures and figures.development and figures.development.frames:
            first = time.perf_counter() - began
        time.sleep(0.01)
    publisher = subprocess.Popen(
        [sys.executable, "-m", "edge", "publish", "--config", str(config)], stderr=subprocess.DEVNULL
    )
    time.sleep(10)
    peaks = {}
    for name, process in (("vision", vision), ("publisher", publisher)):
        status = Path(f"/proc/{process.pid}/status").read_text()
        peaks[name] = int(status.split("VmHWM:")[1].split()[0]) / 1024
        process.terminate()
        process.wait(10)
    return first or float("nan"), peaks


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", nargs="?", type=Path, help="a video (default: the demo's clip)")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    logging.disable(logging.CRITICAL)
    bundle = settings.development("clip").models.bundle.resolve()
    ratios, rates, stages = [], [], {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip = args.clip.resolve() if args.clip else folder / "clip.mp4"
        if not args.clip:
            compose(clip)
        config = configure(folder, clip, bundle)
        for number in range(args.rounds):
            print(f"round {number + 1} of {args.rounds} …", file=sys.stderr)
            seconds, stages, routed = whole(settings.load(config))
            ratios.append(seconds / bare(clip, bundle, routed))
            rates.append(len(routed) / seconds)
        services = folder / "services"  # of their own: nothing of the rounds before may lie there
        services.mkdir()
        first, peaks = resident(services, configure(services, clip, bundle, loop=True))
    print("| figure | value |\n|---|---|")
    print(f"| clip | {args.clip.name if args.clip else 'demo clip'}, {len(routed)} frames |")
    print(f"| machine | {os.cpu_count()} cores |")
    print(f"| frames per second, median of {args.rounds} | {statistics.median(rates):.1f} |")
    print(f"| whole pipeline ÷ bare kernels, median | {statistics.median(ratios):.3f} |")
    for stage, ms in stages.items():
        print(f"| {stage}, ms a frame | {ms:.2f} |")
    for service, mb in peaks.items():
        print(f"| {service}, peak resident MB | {mb:.0f} |")
    print(f"| start to first frame, s | {first:.2f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
