"""PublicTest-in-scene: faces in front of real rooms, through the device's whole path.

A PublicTest face is enlarged to 60 to 160 pixels and set, with a feathered edge, into a frame of a clip. The device's
detector looks for it, the device's crop cuts it, the shipped model answers. What differs from scoring the face directly
is what the detector's box and the resampling cost.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import chain, pairwise, repeat
from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np

from edge.errors import SourceError
from edge.vision.camera.replay import Replay
from edge.vision.preprocess import chip
from edge_quantize.datasets.fer2013 import data_root
from edge_quantize.evaluation import metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from edge.types import U8, CropSpec, FaceBox
    from edge.vision.detect import Detector

SEED: Final = 20261121
TRAIN_SEED: Final = 7
"""Of the scenes that bare training faces are set into; masked ones have the next."""
FACES: Final = 1200
SIDES: Final = (60, 160)
"""Smallest and largest side of a pasted face in pixels."""
OVERLAP: Final = 0.4
"""A box found is the pasted face when their intersection is at least this share of their union."""
_FEATHER: Final = 0.06


@dataclass(frozen=True, slots=True)
class Found:
    """What the detector and the crop made of M faces in scenes."""

    chips: U8
    """(C, F, 48, 48) of the faces found, by crop."""
    found: NDArray[np.bool_]
    """(M,) whether the face was found."""
    sides: NDArray[np.int64]
    """(M,) side of the pasted face in pixels."""
    boxes: NDArray[np.float64]
    """(F, 3) of the faces found: width and centre (x, y) of the box in sides of the pasted face, from its corner."""


def backgrounds(folder: Path | None = None, first: int = 0) -> list[U8]:
    """Every tenth frame of the clips from `first` on. Raises SourceError when there are none."""
    return [image for frames in by_clip(folder, first).values() for image in frames]


def by_clip(folder: Path | None = None, first: int = 0) -> dict[str, list[U8]]:
    """`backgrounds` by the clip's name."""
    clips = (folder or data_root()) / "clips"
    frames: dict[str, list[U8]] = {}
    for path in sorted(clips.glob("*.gif")):
        replay = Replay(path)
        frames[path.stem] = []
        while (frame := replay.read(0)) is not None:
            if frame.index % 10 == first:
                frames[path.stem].append(frame.image)
    if not any(frames.values()):
        msg = f"{clips}: no clips (*.gif) to set faces into: set EDGE_DATA"
        raise SourceError(msg)
    return frames


def squares(scenes: Sequence[U8]) -> list[U8]:
    """The left, middle and right square of each scene: searched in a third of the time of the whole."""
    return [
        np.ascontiguousarray(scene[:, x : x + scene.shape[0]])
        for scene in scenes
        for x in np.linspace(0, scene.shape[1] - scene.shape[0], 3).astype(int)
    ]


def paste(face: U8, side: int, scene: U8, corner: tuple[int, int]) -> U8:
    """Copy of a BGR scene with a grey face of `side` pixels at (x, y) = `corner`, its edge feathered."""
    big = cv2.resize(face, (side, side), interpolation=cv2.INTER_CUBIC).astype(np.float32)[..., None]
    soft = max(1, round(_FEATHER * side))
    ramp = np.minimum(1, (np.minimum(np.arange(side), np.arange(side)[::-1]) + 1) / soft)
    alpha = np.minimum(ramp[:, None], ramp[None, :])[..., None]
    out = scene.copy()
    x, y = corner
    under = out[y : y + side, x : x + side]
    out[y : y + side, x : x + side] = np.clip(np.rint(alpha * big + (1 - alpha) * under), 0, 255).astype(np.uint8)
    return out


def _union_share(box: FaceBox, x: int, y: int, side: int) -> float:
    wide = min(box.x + box.w, x + side) - max(box.x, x)
    high = min(box.y + box.h, y + side) - max(box.y, y)
    shared = max(0.0, wide) * max(0.0, high)
    return shared / (box.w * box.h + side * side - shared)


def turned(face: U8, roll: float) -> tuple[U8, float]:
    """A grey picture turned by degrees clockwise, whole in a square whose corners repeat its edge, and how much larger.

    It is enlarged before it is turned, so that little is lost: the square is for `paste`.
    """
    if not roll:
        return face, 1.0
    large = cv2.resize(face, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
    grown = abs(math.cos(math.radians(roll))) + abs(math.sin(math.radians(roll)))
    inner, side = len(large), round(grown * len(large))
    matrix = np.asarray(cv2.getRotationMatrix2D(((inner - 1) / 2, (inner - 1) / 2), -roll, 1.0), np.float64)
    matrix[:, 2] += (side - inner) / 2
    out: U8 = cv2.warpAffine(large, matrix, (side, side), borderMode=cv2.BORDER_REPLICATE).astype(np.uint8, copy=False)
    return out, grown


def place(
    faces: U8, scenes: list[U8], rolls: Iterable[float] = (), seed: int = SEED
) -> Iterator[tuple[U8, int, int, int]]:
    """Set each face (M, 48, 48) into a scene, turned by its roll in degrees clockwise; upright where there is none.

    Yields the BGR frame, x, y and side of the face's square before it was turned. Fixed by the seed.
    """
    rng = np.random.default_rng(seed)
    sides = rng.integers(SIDES[0], SIDES[1] + 1, len(faces))
    for face, drawn, roll in zip(faces, sides, chain(rolls, repeat(0.0)), strict=False):
        scene, side = scenes[rng.integers(len(scenes))], int(drawn)
        picture, grown = turned(face, roll)
        rim = round((grown - 1) * side / 2)
        whole = side + 2 * rim
        height, width = scene.shape[:2]
        x, y = int(rng.integers(0, width - whole + 1)), int(rng.integers(0, height - whole + 1))
        yield paste(picture, whole, scene, (x, y)), x + rim, y + rim, side


def match(boxes: Sequence[FaceBox], x: int, y: int, side: int) -> FaceBox | None:
    """The box that fits the pasted face best, None where none is `OVERLAP` of it: scenes hold faces of their own."""
    near = [(_union_share(box, x, y, side), box) for box in boxes]
    share, best = max(near, key=lambda one: one[0], default=(0.0, None))
    return best if share >= OVERLAP else None


def look(
    faces: U8,
    scenes: list[U8],
    detector: Detector,
    crops: Sequence[CropSpec],
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    seed: int = SEED,
) -> Found:
    """Set each face (M, 48, 48) into a scene, look for it as the device does, and cut it by each of the C crops."""
    chips: list[list[U8]] = []
    boxes: list[tuple[float, float, float]] = []
    found = np.zeros(len(faces), bool)
    sides = np.zeros(len(faces), np.int64)
    for k, (frame, x, y, side) in enumerate(place(faces, scenes, seed=seed)):
        sides[k] = side
        box = match(detector.detect(frame, thorough=True), x, y, side)
        if box is not None:
            found[k] = True
            chips.append([chip(frame, box, crop) for crop in crops])
            boxes.append((box.w / side, (box.centre[0] - x) / side, (box.centre[1] - y) / side))
        progress(k + 1, len(faces))
    stacked = np.array(chips, np.uint8).reshape(-1, len(crops), 48, 48).swapaxes(0, 1)
    return Found(stacked, found, sides, np.array(boxes, np.float64).reshape(-1, 3))


def figures(
    seen: Found, truth: NDArray[np.int64], there: NDArray[np.int64], direct: NDArray[np.int64]
) -> dict[str, Any]:
    """Recall, accuracy in the scene and of the same faces directly; how the faces not found are read directly.

    Args:
        seen: of M faces.
        truth: (M,) class numbers.
        there: (F,) answers to the chips cut from the scenes.
        direct: (M,) answers to the faces themselves.

    """
    found = seen.found
    right, plain = there == truth[found], (direct == truth)[found]
    edges = np.linspace(SIDES[0], SIDES[1] + 1, 4).astype(int)
    by_side = {}
    for low, high in pairwise(edges):
        there_at = (seen.sides >= low) & (seen.sides < high)
        found_at = there_at[found]
        by_side[f"{low} to {high - 1} px"] = {
            "recall": metrics.share(found[there_at]),
            "accuracy": metrics.share(right[found_at]),
            "direct": metrics.share(plain[found_at]),
            **metrics.paired_loss(plain[found_at], right[found_at]),
        }
    median = np.median(seen.boxes, axis=0) if len(seen.boxes) else np.full(3, np.nan)
    return {
        "recall": metrics.share(found),
        "in_scene": metrics.share(right),
        "direct": metrics.share(plain),
        "not_found_direct": metrics.share((direct == truth)[~found]),
        **metrics.paired_loss(plain, right),
        "by_side": by_side,
        "median_box": {"width": round(float(median[0]), 3), "x": round(float(median[1]), 3),
                       "y": round(float(median[2]), 3)},
    }  # fmt: skip
