"""How long somebody new waits until they are found, and what an empty, still scene costs: docs/decisions/0026.

    .venv/bin/python bench/newcomers.py --bundle models/fer-2027.09 [--faces N] [--wide] [--before d52c8f32]

Streams are the clips (EDGE_DATA), frame by frame, into which faces are pasted as in `detectors.py`, for twelve frames
each. A wait is the number of frames before the one in which a face is first found, 12 if it never is. Still scenes are
one frame of a clip with its heads blurred away and a sensor's noise; a face is there from one frame to the next, or
fades in over ten frames, from whose last its wait counts. `--wide`: frames of 1280×720. `--before`: beside the detector
of a commit before LiteRT, on the runtime it had. `--min-face 36` is what ships; with less, what comes out narrower than
the face counts too. Times are CPU time.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Final

import cv2
import detectors
import numpy as np
from edge_quantize.datasets.fer2013 import data_root
from edge_quantize.evaluation import in_scene
from quick import released

from edge.bundle.manifest import load_bundle
from edge.inference.cpu import CpuBackend
from edge.vision.camera.replay import Replay
from edge.vision.detect.blazeface import BlazeFace
from edge.vision.detect.choose import ROLE, open_detector

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from edge.bundle.manifest import Bundle
    from edge.types import U8
    from edge.vision.detect import Detector
    from edge.vision.detect.schedule import Budget

SIZES: Final = (24, 36, 48)
"""Widths of the pasted face's box in pixels of the frame."""
STAY: Final = 12
"""Frames for which a face is there."""
APART: Final = 4
"""Frames between two faces."""
NOISE: Final = 3.0
"""Standard deviation of a still scene's grey levels."""


@dataclass
class Seen:
    """Of one detector, by kind and width."""

    waits: dict[tuple[str, int], list[int]] = field(default_factory=lambda: defaultdict(list))
    found: dict[tuple[str, int], list[bool]] = field(default_factory=lambda: defaultdict(list))
    false: list[int] = field(default_factory=list)
    ms: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """With a face there, and without."""


def rooms(*, wide: bool) -> list[list[detectors.Room]]:
    """The clips' frames."""
    out = []
    for path in sorted((data_root() / "clips").glob("*.gif")):
        replay, frames = Replay(path), []
        while (frame := replay.read(0)) is not None:
            room = detectors.Room(frame.image, detectors.HEADS[path.stem])
            frames.append(detectors.widened(room) if wide else room)
        out.append(frames)
    return out


def still(room: detectors.Room, rng: np.random.Generator) -> Iterator[U8]:
    """A frame without its heads, as a sensor would see it time and again."""
    base = room.image.copy()
    for left, top, right, bottom in room.heads:
        base[top:bottom, left:right] = base[top:bottom, left:right].mean(axis=(0, 1))
    while True:
        yield np.clip(base + rng.normal(0, NOISE, base.shape), 0, 255).astype(np.uint8)


def visit(
    named: dict[str, Detector],
    seen: dict[str, Seen],
    key: tuple[str, int],
    film: Iterator[U8],
    heads: list[tuple[int, int, int, int]],
    face: detectors.Face,
    fade: int,
    rng: np.random.Generator,
) -> None:
    """`APART` frames of nobody new, then a face for `STAY`, after `fade` in which it appears."""
    place: detectors.Place = (0, 0, 0)
    corner = rng.random(2)
    waited: dict[str, int] = {}
    for at in range(-APART - fade, STAY):
        frame = next(film)
        share = min(1.0, (at + fade + 1) / (fade + 1)) if at >= -fade else 0.0
        if share:
            frame, place = detectors.paste(face, frame, key[1], corner, share)
        for name, detector in named.items():
            began = time.process_time()
            boxes = detector.detect(frame)
            seen[name].ms["face" if share else "nobody"].append(1000 * (time.process_time() - began))
            seen[name].false.append(sum(detectors.false(box, place, heads) for box in boxes))
            if at >= 0:
                hit = in_scene.match(boxes, *(round(v) for v in place)) is not None
                seen[name].found[key].append(hit)
                if hit:
                    waited.setdefault(name, at)
    for name in named:
        seen[name].waits[key].append(waited.get(name, STAY))


def measure(named: dict[str, Detector], count: int, scene: str, sizes: Sequence[int], *, wide: bool) -> dict[str, Seen]:
    """All detectors on the same frames; `scene`: `clips`, `still` or `fading`."""
    rng, seen = np.random.default_rng(in_scene.SEED), {name: Seen() for name in named}
    clips = rooms(wide=wide)
    for kind in ("unmasked", "masked"):
        for number, face in enumerate(detectors.faces(kind, count)):
            for width in sizes:
                frames = clips[number % len(clips)]
                film = (room.image for _ in range(99) for room in frames) if scene == "clips" else still(frames[0], rng)
                heads = frames[0].heads if scene == "clips" else []
                visit(named, seen, (kind, width), film, heads, face, 10 * (scene == "fading"), rng)
    return seen


def before(commit: str, bundle: Bundle, min_face: int) -> Detector:
    """BlazeFace as a commit had it, on tflite-runtime."""
    path = released(commit) / "edge" / "vision" / "detect" / "blazeface.py"
    module = ModuleType("before")
    sys.modules[module.__name__] = module
    exec(compile(path.read_text(encoding="utf-8"), path, "exec"), module.__dict__)  # noqa: S102 - a commit of ours
    answer = partial(CpuBackend(bundle, (ROLE,), choice="tflite").outputs, ROLE)
    detector: Detector = module.BlazeFace(answer, bundle.entry(ROLE).anchors, min_face=min_face)
    return detector


def paced(ms: float, budget_ms: float, bundle: Bundle, cpu: CpuBackend, min_face: int) -> Detector:
    """BlazeFace on a machine where every search takes so long, whatever it takes here."""
    searched = 0

    def answer(pictures: U8) -> NDArray[np.int8]:
        nonlocal searched
        searched += len(pictures)
        return cpu.outputs(ROLE, pictures)

    anchors = bundle.entry(ROLE).anchors
    return BlazeFace(answer, anchors, min_face=min_face, budget_ms=budget_ms, clock=lambda: searched * ms / 1000)


def table(seen: dict[str, Seen], scene: str, sizes: Sequence[int]) -> str:
    """Markdown."""
    heads = [f"{kind} {width} px" for kind in ("unmasked", "masked") for width in sizes]
    lines = [
        f"| {scene} | " + " | ".join(heads) + " | false a frame | ms, face there | ms, nobody new |",
        "|---|" + "--:|" * (len(heads) + 3),
    ]
    for name, one in seen.items():
        cells = []
        for kind in ("unmasked", "masked"):
            for width in sizes:
                waits, found = one.waits[kind, width], one.found[kind, width]
                p50, p95 = np.percentile(waits, [50, 95], method="higher")
                cells.append(f"{100 * np.mean(np.array(waits) == 0):.0f} / {100 * np.mean(found):.0f} %, {p50}, {p95}")
        times = [f"{np.median(one.ms[what]):.1f}" for what in ("face", "nobody")]
        lines.append(f"| {name} | " + " | ".join([*cells, f"{np.mean(one.false):.4f}", *times]) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--faces", type=int, default=40, help="of each kind")
    parser.add_argument("--wide", action="store_true")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="widths of the pasted face's box")
    parser.add_argument("--min-face", type=int, default=detectors.SMALLEST)
    parser.add_argument("--before", metavar="COMMIT")
    parser.add_argument("--search-ms", type=float, nargs="*", default=[], help="beside machines of such a speed")
    parser.add_argument("--scenes", nargs="+", default=["clips", "still", "fading"])
    args = parser.parse_args()
    cv2.setNumThreads(1)
    bundle = load_bundle(args.bundle)
    cpu = CpuBackend(bundle, (ROLE,))
    print("found in the first frame / in all twelve, frames waited: median, 95th percentile\n")
    for scene in args.scenes:
        budgets: tuple[Budget, ...] = None, "auto"
        named = {
            f"budget {ms or 'none'}": open_detector(bundle, "blazeface", cpu, min_face=args.min_face, budget_ms=ms)
            for ms in budgets
        }
        for ms in args.search_ms:
            named |= {
                f"{ms:g} ms a search, budget {pays}": paced(ms, pays, bundle, cpu, args.min_face) for pays in (25, 60)
            }
        if args.before:
            named[args.before] = before(args.before, bundle, args.min_face)
        print(table(measure(named, args.faces, scene, args.sizes, wide=args.wide), scene, args.sizes), flush=True)


if __name__ == "__main__":
    main()
