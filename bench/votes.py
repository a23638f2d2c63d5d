"""What looking less often costs or wins in votes: labelled faces through the device's own pipeline.

    EDGE_DATA=… .venv/bin/python bench/votes.py [--faces N] [--frames N] [--fps N]

Each PublicTest face, bare and behind its frozen mask, stands before a camera for some frames: set into a room, enlarged
to 60 to 160 pixels, moved a little, with a sensor's noise. Boxes are given, with a detector's own error, so that every
way sees the same; crop, gate, nets and tracker are the service's. Right is a vote for the label.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING
from unittest import mock

import numpy as np
from edge_quantize.evaluation import chips, metrics
from edge_quantize.evaluation.in_scene import SEED, SIDES, paste

from edge import config as settings
from edge.bundle.manifest import load_bundle
from edge.commands.demo.clip import room
from edge.inference.cpu import CpuBackend
from edge.types import EMOTIONS, FaceBox, Frame
from edge.vision import track
from edge.vision.pipeline import Pipeline
from edge.vision.route import ROLES, Router

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge.types import U8

SIZE = (320, 240)
BOX = (0.835, 0.496, 0.583)
"""Width and centre of a BlazeFace box in sides of the face (docs: in-scene medians)."""
WAYS = {"every frame": {"LOOK_S": 0.0, "SETTLED_LOOK_S": 0.0}, "settled less often (shipped)": {}}
NOISE = np.random.default_rng(SEED).normal(0, 3, (16, SIZE[1], SIZE[0], 3)).astype(np.int16)
"""Of a sensor, σ 3 grey levels."""


class Given:
    """A detector that is told where the face is."""

    kind = "blazeface"

    def __init__(self) -> None:
        self.boxes: list[FaceBox] = []

    def detect(self, image: U8, *, thorough: bool = False, zoom: float = 1.0) -> list[FaceBox]:
        """See `edge.vision.detect.Detector`."""
        del image, thorough, zoom
        return self.boxes


def frames(face: U8, seed: int, count: int, fps: float) -> list[tuple[Frame, FaceBox]]:
    """What the camera shows of one face, and the box found."""
    rng = np.random.default_rng((SEED, seed))
    side = int(rng.integers(*SIDES))
    wall, at = room(SIZE), rng.integers(20, (SIZE[0] - side - 20, SIZE[1] - side - 20))
    shown = []
    for k in range(count):
        here = at + np.rint(rng.normal(0, 0.01 * side, 2)).astype(int)
        picture = paste(face, side, wall, (int(here[0]), int(here[1])))
        noisy = np.clip(picture + NOISE[rng.integers(len(NOISE))], 0, 255).astype(np.uint8)
        width = BOX[0] * side * (1 + rng.normal(0, 0.02))
        centre = here + np.array(BOX[1:]) * side + rng.normal(0, 0.015 * side, 2)
        box = FaceBox(float(centre[0] - width / 2), float(centre[1] - width / 2), float(width), float(width))
        shown.append((Frame(noisy, k / fps, k, 1 / fps), box))
    return shown


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=("bare", "masked"), action="append", help="default: both")
    parser.add_argument("--faces", type=int, default=400)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--fps", type=float, default=8.0)
    args = parser.parse_args()
    bundle = load_bundle(settings.development("clip").models.bundle)
    router = Router(CpuBackend(bundle, ROLES["gate"], threads=1), "gate")
    fer, masked = chips.fer2013(), chips.frozen()
    rng = np.random.default_rng(SEED)
    public = fer.public_rows()
    material = {
        "bare": (fer.images[public], fer.labels[public]),
        "masked": (masked.images, fer.labels[masked.params["index"]]),
    }
    for kind in args.kind or material:
        images, labels = material[kind]
        rows = rng.permutation(len(images))[: args.faces]
        right = {way: np.zeros(len(rows), bool) for way in WAYS}
        asked = dict.fromkeys(WAYS, 0)
        for n, row in enumerate(rows):
            seen = frames(images[row], int(row), args.frames, args.fps)
            for way, changes in WAYS.items():
                with (
                    mock.patch.multiple(track, **changes) if changes else mock.patch.object(track, "LOOKS", track.LOOKS)
                ):
                    detector = Given()
                    pipeline = Pipeline(detector, router, bundle.crop("blazeface"), {"unmasked": 0.0, "masked": 0.0})
                    for frame, box in seen:
                        detector.boxes = [box]
                        pipeline.see(frame)
                    asked[way] += sum(state.looks for state in pipeline._tracker._tracks.values())  # noqa: SLF001 - nothing else says it
                    votes = pipeline.votes()
                right[way][n] = len(votes) == 1 and votes[0].cell == EMOTIONS[labels[row]]
            if n % 25 == 24 or n + 1 == len(rows):
                told = {way: hits[: n + 1] for way, hits in right.items()}
                tell(f"{kind}, {n + 1} faces, {args.frames} frames at {args.fps:g} a second", told, asked)
    return 0


def tell(title: str, right: dict[str, NDArray[np.bool_]], asked: dict[str, int]) -> None:
    """Print a table of hits and misses by way of looking; each later one holds all of the ones before."""
    print(f"\n{title}\n\n| looks | right | points more (95 %) | McNemar p | looks a face |\n|---|---|---|---|---|")
    first = next(iter(WAYS))
    for way, hits in right.items():
        share, loss = metrics.share(hits), metrics.paired_loss(right[first], hits)
        more = f"{-loss['loss_points']:+.2f} ({-loss['loss_high']:.2f} to {-loss['loss_low']:.2f})"
        told = f"{share['accuracy']:.2%} ({share['low']:.2%} to {share['high']:.2%})"
        print(f"| {way} | {told} | {more} | {loss['mcnemar_p']:.3f} | {asked[way] / len(hits):.1f} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
