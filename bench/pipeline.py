"""Speed and memory of the appliance, side by side in one run.

    .venv/bin/python bench/pipeline.py [CLIP ...] [--rounds N] [--frames N]

Prints a Markdown table: frames per second and ms per stage of the whole pipeline, its overhead over the bare kernels
(decode, resize, the same invokes in a plain loop), what the gate saves, resident memory of each service, and the time
from start to the first frame. Rounds alternate; medians are reported. On a busy machine
processor time is the fairer one.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import cv2
import numpy as np
from material import configure, crowd, median_range
from numpy.typing import NDArray
from worker import routing

from edge import config as settings
from edge.bundle.manifest import load_bundle
from edge.commands.demo.clip import compose
from edge.inference.cpu import CpuBackend
from edge.inference.tflite import to_int8
from edge.outbox.runtime_files import read_vision
from edge.vision.detect import blazeface
from edge.vision.detect.blazeface import letterbox
from edge.vision.detect.choose import detector_roles
from edge.vision.preprocess import shrink
from edge.vision.route import ROLES
from edge.vision.service import Vision

if TYPE_CHECKING:
    from edge.types import U8

Invoked = list[tuple[str, NDArray[np.int8], tuple[int, int]]]
"""What the models of one frame were shown: role, one input, height and width of the part of the frame that it shows."""


def watched(config: settings.Config, most: int) -> list[Invoked]:
    """What the pipeline shows its models, frame by frame, at most so many."""
    frames: list[Invoked] = []
    now: Invoked = []

    def remember(*_: object) -> None:
        frames.append(list(now))
        now.clear()
        if len(frames) == most:
            service.stop()

    plain, sizes = CpuBackend.outputs, list[tuple[int, int]]()

    def boxed(image: U8) -> tuple[U8, float, tuple[int, int]]:
        sizes.append((image.shape[0], image.shape[1]))
        return letterbox(image)

    def outputs(backend: CpuBackend, role: str, chips: U8) -> NDArray[np.int8]:
        shown = sizes if role == "detector" and sizes else [(1, 1)] * len(chips)
        now.extend((role, one[None], size) for one, size in zip(to_int8(chips), shown, strict=True))
        sizes.clear()
        return plain(backend, role, chips)

    with mock.patch.object(CpuBackend, "outputs", outputs), mock.patch.object(blazeface, "letterbox", boxed):
        service = Vision(config, on_frame=remember)
        now.clear()  # golden answers
        service.run()
    return frames


def bare(clip: Path, bundle: Path, frames: list[Invoked]) -> tuple[float, float]:
    """(seconds, processor seconds) of decoding, a resize an input of the detector, and the same invokes."""
    loaded = load_bundle(bundle)
    backend = CpuBackend(loaded, (*detector_roles(loaded, "auto"), *ROLES["gate"]))
    models = backend._models  # noqa: SLF001 - the interpreters themselves are what is timed
    capture = cv2.VideoCapture(str(clip))
    began = time.perf_counter(), time.process_time()
    for invoked in frames:
        _, image = capture.read()
        for role, one, (height, width) in invoked:
            if role == "detector":
                shrink(np.asarray(image[:height, :width], np.uint8), 128, 128, last=cv2.INTER_LINEAR)
            interpreter, given, asked, _ = models[role]
            interpreter.set_tensor(given, one)
            interpreter.invoke()
            interpreter.get_tensor(asked)
    return time.perf_counter() - began[0], time.process_time() - began[1]


def whole(config: settings.Config, frames: int) -> tuple[float, float, dict[str, float]]:
    """(seconds, processor seconds, ms per stage) of `Vision.run` on so many frames."""
    seen = count(1)
    service = Vision(config, on_frame=lambda *_: service.stop() if next(seen) == frames else None)
    began = time.perf_counter(), time.process_time()
    service.run()
    seconds = time.perf_counter() - began[0], time.process_time() - began[1]
    figures = read_vision(config.storage.runtime)
    return *seconds, figures.development.stage_ms if figures and figures.development else {}


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
    parser.add_argument("clips", nargs="*", type=Path, help="films (default: the demo's, one of one face, one of ten)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--frames", type=int, default=80, help="of each film")
    args = parser.parse_args()
    logging.disable(logging.CRITICAL)
    bundle = settings.development("clip").models.bundle.resolve()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clips = {clip.name: clip.resolve() for clip in args.clips}
        if not clips:
            compose(folder / "demo.mp4")
            clips = {"demo": folder / "demo.mp4"}
            for faces in (1, 10):
                size = (480, 360) if faces < 4 else (960, 720)
                clips[f"{faces} faces"] = crowd(folder / f"{faces}.mp4", faces, size, frames=args.frames)
        print(f"| figure, median of {args.rounds} (range) | value |\n|---|---|")
        for title, clip in clips.items():
            tell(title, clip, bundle, args.rounds, args.frames)
        ratios = routing(load_bundle(bundle), 5)[-1]
        print(f"| gate routing ÷ both nets, processor time (aim ≤ .6) | {statistics.median(ratios):.2f} |")
        services = folder / "services"  # of their own: nothing of the rounds before may lie there
        services.mkdir()
        first, peaks = resident(services, configure(services, next(iter(clips.values())), bundle, loop=True))
    for service, mb in peaks.items():
        print(f"| {service}, peak resident MB | {mb:.0f} |")
    print(f"| start to first frame, s (aim ≤ 1) | {first:.2f} |")
    return 0


def tell(title: str, clip: Path, bundle: Path, rounds: int, most: int) -> None:
    """Measure one clip in turn with its bare kernels, and print rows of the table."""
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        config = settings.load(configure(Path(name), clip, bundle))
        frames = watched(config, most)
        for _ in range(rounds):
            seconds, busy, stages = whole(config, len(frames))
            alone, kernels = bare(clip, bundle, frames)
            for figure, value in (
                ("frames a second", len(frames) / seconds),
                ("processor ms a frame", 1000 * busy / len(frames)),
                ("whole ÷ bare kernels, processor time", busy / kernels),
                ("whole ÷ bare kernels, wall time", seconds / alone),
                *((f"{stage}, ms a frame", ms) for stage, ms in stages.items()),
            ):
                found.setdefault(figure, []).append(value)
    looks = sum(role == "detector" for frame in frames for role, *_ in frame) / len(frames)
    faces = sum(role.startswith("fer") for frame in frames for role, *_ in frame) / len(frames)
    print(f"| {title}: regions searched, faces read, a frame | {looks:.1f}, {faces:.1f} |")
    for figure, values in found.items():
        print(f"| {title}: {figure} | {median_range(values)} |")


if __name__ == "__main__":
    sys.exit(main())
