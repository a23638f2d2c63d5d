"""How the cost of a frame grows with the faces in it and with its size: docs/decisions/0027.

    .venv/bin/python bench/growth.py [--frames N] [--plot bench/growth.png]

Heads that sway in a grid: none to forty in 1280×720, and two from VGA to 4K. From a decoded frame to its expressions
(`Pipeline.see`), as a camera of 8 frames a second without a budget; each point is a process of its own, whose first
frames, in which everything is new, are left out. Prints a Markdown table: faces found, searches of the detector, looks
at expressions, processor time and latency (median, 95th percentile), peak resident memory.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final
from unittest import mock

import numpy as np
from material import FPS, add_crowd, configure, portraits

from edge import config as settings
from edge.commands.demo.clip import room
from edge.inference.cpu import CpuBackend
from edge.vision.camera.replay import Replay
from edge.vision.pipeline import Pipeline
from edge.vision.service import Vision

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from edge.types import U8, Frame, Track

WIDE: Final = (1280, 720)
COUNTS: Final = (0, 1, 2, 5, 10, 20, 40)
SIZES: Final = ((640, 480), WIDE, (1920, 1080), (3840, 2160))
CROPS: Final = ((slice(20, 250), slice(110, 340)), (slice(30, 330), slice(100, 400)))
"""Heads of the two portraits."""
TALL: Final = 150 / 720
"""Height of a head where there is room, in heights of the frame: at every size the same scene."""
WARM: Final = 8
"""Frames that are left out: who is there is new in them."""


def film(faces: int, size: tuple[int, int], frames: int) -> Iterator[U8]:
    """`faces` heads that sway in a grid, each at most as high as `TALL` of the frame."""
    shown, wall = [picture[crop] for picture, crop in zip(portraits(), CROPS, strict=True)], room(size)
    rng = np.random.default_rng(2)
    for index in range(frames):
        canvas = np.clip(wall + rng.normal(0, 2, wall.shape[:2])[..., None], 0, 255).astype(np.uint8)
        yield add_crowd(canvas, shown, faces, index, 0.95, TALL * size[1])


def one(faces: int, size: tuple[int, int], frames: int) -> dict[str, float]:
    """Figures of one point, measured in this process."""
    logging.disable(logging.CRITICAL)
    rows: list[tuple[float, float, int, int, int]] = []
    asked = {"detector": 0, "fer": 0}
    see, outputs = Pipeline.see, CpuBackend.outputs

    def counted(backend: CpuBackend, role: str, chips: U8) -> NDArray[np.int8]:
        asked[role[:3] if role.startswith("fer") else "detector"] += len(chips) * (role != "gate")
        return outputs(backend, role, chips)

    def timed(pipeline: Pipeline, frame: Frame) -> list[Track]:
        before, began, spent = dict(asked), time.perf_counter(), time.process_time()
        tracks = see(pipeline, frame)
        took = time.perf_counter() - began, time.process_time() - spent
        rows.append((*took, len(tracks), *(asked[what] - before[what] for what in asked)))
        return tracks

    def made(_: Replay) -> Iterator[tuple[float, float, U8, bool]]:
        for index, image in enumerate(film(faces, size, frames + WARM)):
            yield index / FPS, 1 / FPS, image, False

    with (
        tempfile.TemporaryDirectory() as name,
        mock.patch.object(CpuBackend, "outputs", counted),
        mock.patch.object(Pipeline, "see", timed),
        mock.patch.object(Replay, "_film_run", made),
    ):
        (Path(name) / "clip.mp4").write_bytes(b"\0\0\0\x08ftyp")  # its frames are made, not decoded
        bundle = settings.development("clip").models.bundle.resolve()
        Vision(settings.load(configure(Path(name), Path(name) / "clip.mp4", bundle))).run()
    wall, busy, found, searches, looks = np.array(rows[WARM:]).T
    peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
    return {
        "found": found.mean(),
        "searches": searches.mean(),
        "looks": looks.mean(),
        "busy50": 1000 * float(np.percentile(busy, 50)),
        "busy95": 1000 * float(np.percentile(busy, 95)),
        "wall50": 1000 * float(np.percentile(wall, 50)),
        "wall95": 1000 * float(np.percentile(wall, 95)),
        "peak": peak,
    }


def row(title: str, at: dict[str, float]) -> str:
    """A point as a row of the table."""
    return (
        f"| {title} | {at['found']:.1f} | {at['searches']:.1f} | {at['looks']:.1f} | {at['busy50']:.0f}, "
        f"{at['busy95']:.0f} | {at['wall50']:.0f}, {at['wall95']:.0f} | {at['peak']:.0f} |"
    )


def plot(crowd: list[dict[str, float]], sizes: list[dict[str, float]], path: Path) -> None:
    """Processor time and memory over faces found and over megapixels."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    across = [at["found"] for at in crowd], [w * h / 1e6 for w, h in SIZES]
    names = "faces found in 1280×720", "megapixels of a frame, two faces"
    for axis, x, points, name in zip(axes, across, (crowd, sizes), names, strict=True):
        axis.fill_between(x, [p["busy50"] for p in points], [p["busy95"] for p in points], alpha=0.2)
        axis.plot(x, [p["busy50"] for p in points], "C0o-", label="processor time, median to 95th percentile")
        axis.set_xlabel(name)
        axis.set_ylabel("ms a frame")
        axis.set_ylim(0)
        axis.grid(alpha=0.3)
        memory = axis.twinx()
        memory.plot(x, [p["peak"] for p in points], "C1s:", label="peak memory")
        memory.set_ylabel("MB")
        memory.set_ylim(0)
    figure.legend(handles=[*axes[0].lines, *memory.lines], loc="outside upper center", ncols=2, fontsize=9)
    figure.savefig(path, dpi=100)


def main() -> int:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--one", type=int, nargs=3, metavar=("FACES", "WIDTH", "HEIGHT"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        faces, width, height = args.one
        print(json.dumps(one(faces, (width, height), args.frames)))
        return 0

    def apart(faces: int, size: tuple[int, int]) -> dict[str, float]:
        command = [sys.executable, __file__, "--frames", str(args.frames), "--one", *map(str, (faces, *size))]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        print(row(f"{faces} in {size[0]}×{size[1]}", found), flush=True)
        return found

    print(f"Load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores.\n")
    print("| heads | found | searches | looks | processor ms a frame, p50, p95 | latency ms, p50, p95 | peak MB |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    crowd = [apart(faces, WIDE) for faces in COUNTS]
    sizes = [apart(2, size) for size in SIZES]
    if args.plot:
        plot(crowd, sizes, args.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
