"""Which faces each detector finds, what else it takes for one, and what a frame costs: docs/detectors.md.

    .venv/bin/python bench/detectors.py --bundle models/fer-2027.09 [--faces N] [--plot docs/detectors.png | --shipped]

Real photos with and without masks (EDGE_DATA), none of which BlazeFace's int8 kernels were fitted on, are set into
frames of the clips (480×270) at several sizes and, at one size, several brightness levels of the whole frame. A face is
found when a box shares at least `in_scene.OVERLAP` of their union with the place where MediaPipe's full-range network,
which is none of the candidates, sees it in the photo alone. A false find is a box whose centre lies neither there nor
on the head of somebody in the clip. Times are CPU time, medians over frames, the detectors in turn on each frame.
`--shipped`: BlazeFace with a device's defaults in 1280×720, searched there and in the smaller picture of a Raspberry
Pi's camera.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import cv2
import numpy as np
from edge_quantize.bundling import blazeface, detector
from edge_quantize.datasets.fer2013 import data_root
from edge_quantize.evaluation import in_scene, metrics
from edge_quantize.progress import bar

from edge.bundle.manifest import load_bundle
from edge.errors import ConfigError
from edge.inference.cpu import CpuBackend
from edge.vision.camera.picamera2 import LORES_WIDTH
from edge.vision.detect.choose import detector_roles, open_detector
from edge.vision.pipeline import zoomed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from edge.types import U8, FaceBox
    from edge.vision.detect import Detector

SIZES: Final = (24, 36, 48, 64, 90, 128)
"""Widths of the pasted face's box in pixels."""
LEVELS: Final = (1.0, 0.5, 0.25, 0.1)
"""Factors on every grey level of the frame, at the width `AT`."""
AT: Final = 64
CELLS: Final = (*((size, 1.0) for size in SIZES), *((AT, level) for level in LEVELS[1:]))
SHIPPED: Final = tuple((size, 1.0) for size in (36, 42, 48, 60, 72, 90))
"""Widths and levels for `--shipped`."""
WIDE: Final = (1280, 720)
MARGIN: Final = 0.6
"""How much of the photo around the face's box is pasted with it, in box widths on either side."""
SMALLEST: Final = 20
HEADS: Final = {
    "classroom": [(45, 125, 100, 185), (105, 110, 160, 165), (212, 108, 265, 160), (288, 130, 345, 185)],
    "head-pose-face-detection-female-and-male": [(15, 35, 170, 180), (275, 30, 405, 155)],
    "head-pose-face-detection-male": [(190, 10, 300, 160)],
}
"""Where heads are in the clips: left, top, right, bottom."""

Cells = tuple[tuple[int, float], ...]
"""Widths of the pasted face and brightness levels of the frame."""
Place = tuple[float, float, float]
"""Left and top of a face's square box, its side."""


class Face(NamedTuple):
    """A photo cut around its only face, and the face's box there: centre x, y, width, height."""

    image: U8
    box: NDArray[np.float64]


class Room(NamedTuple):
    """A frame of a clip, and the heads in it."""

    image: U8
    heads: list[tuple[int, int, int, int]]


def widened(room: Room) -> Room:
    """The same in 1280×720."""
    zoom = WIDE[0] / room.image.shape[1]
    image = cv2.resize(room.image, WIDE, interpolation=cv2.INTER_CUBIC)
    heads = [(round(a * zoom), round(b * zoom), round(c * zoom), round(d * zoom)) for a, b, c, d in room.heads]
    return Room(np.asarray(image, np.uint8), heads)


@dataclass(frozen=True)
class InLores:
    """A detector that gets the smaller picture of a Raspberry Pi's camera, as the pipeline gives it one."""

    detector: Detector
    kind: str = "blazeface"

    def detect(self, image: U8, *, thorough: bool = False, zoom: float = 1.0) -> list[FaceBox]:
        """Boxes in pixels of the image."""
        shrink = image.shape[1] / LORES_WIDTH
        small = cv2.resize(image, None, fx=1 / shrink, fy=1 / shrink, interpolation=cv2.INTER_AREA)
        found = self.detector.detect(np.asarray(small, np.uint8), thorough=thorough, zoom=zoom * shrink)
        return [zoomed(box, shrink) for box in found]


@dataclass
class Measured:
    """By detector."""

    found: dict[tuple[str, str, float, float], dict[str, Any]] = field(default_factory=dict)
    """Share (`metrics.share`) by kind of face, detector, width, level."""
    false: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    """False finds of each frame."""
    ms: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """CPU time of each frame."""


def faces(kind: str, count: int) -> list[Face]:
    """Photos of one kind in which the full-range network sees exactly one face, at least 60 pixels wide."""
    from mediapipe.python.solutions.face_detection import FaceDetection

    judge, found = FaceDetection(model_selection=1, min_detection_confidence=0.5), []
    fitted = set(detector.photo_files(detector.PHOTOS, np.random.default_rng(detector.SEED)))
    paths = sorted(set((data_root() / "masks_real" / kind).glob("*.jpg")) - fitted)
    for row in np.random.default_rng(in_scene.SEED).permutation(len(paths)):
        photo: U8 = np.asarray(cv2.imread(str(paths[row]), cv2.IMREAD_COLOR), np.uint8)
        rim = max(photo.shape[:2])
        wide: U8 = cv2.copyMakeBorder(photo, rim, rim, rim, rim, cv2.BORDER_CONSTANT, value=(128, 128, 128)).astype(
            np.uint8, copy=False
        )
        seen = judge.process(wide[..., ::-1].copy()).detections or []
        if len(seen) != 1:
            continue
        r, (h, w) = seen[0].location_data.relative_bounding_box, wide.shape[:2]
        box = np.array([(r.xmin + r.width / 2) * w - rim, (r.ymin + r.height / 2) * h - rim, r.width * w, r.height * h])
        low = np.maximum(box[:2] - (0.5 + MARGIN) * box[2:], 0).astype(int)
        high = np.minimum(box[:2] + (0.5 + MARGIN) * box[2:], photo.shape[1::-1]).astype(int)
        if box[2] >= 60 and (high > low).all():
            cut = photo[low[1] : high[1], low[0] : high[0]]
            found.append(Face(cut, box - [*low, 0, 0]))
        if len(found) == count:
            break
    return found


def scenes(people: list[Face], rooms: list[Room], width: float, level: float) -> Iterator[tuple[Room, Place]]:
    """Frames with one more face each, and where it is."""
    rng = np.random.default_rng(in_scene.SEED)
    for face in people:
        room = rooms[rng.integers(len(rooms))]
        frame, place = paste(face, room.image, width, rng.random(2))
        yield Room(np.rint(frame * level).astype(np.uint8), room.heads), place


def paste(face: Face, image: U8, width: float, corner: NDArray[np.float64], share: float = 1.0) -> tuple[U8, Place]:
    """A copy of the image with a face of that width, mixed in by `share`; `corner` in shares of the room there is."""
    frame = image.copy()
    zoom = width / face.box[2]
    way = cv2.INTER_AREA if zoom < 1 else cv2.INTER_CUBIC
    small = cv2.resize(face.image, None, fx=zoom, fy=zoom, interpolation=way)[: frame.shape[0], : frame.shape[1]]
    h, w = small.shape[:2]
    x, y = int(corner[0] * (frame.shape[1] - w + 1)), int(corner[1] * (frame.shape[0] - h + 1))
    ramp = [np.minimum(1, (np.minimum(np.arange(n), np.arange(n)[::-1]) + 1) / max(1, 0.05 * n)) for n in (h, w)]
    alpha = share * np.minimum(ramp[0][:, None], ramp[1][None])[..., None]
    under = frame[y : y + h, x : x + w]
    frame[y : y + h, x : x + w] = np.rint(alpha * small + (1 - alpha) * under).astype(np.uint8)
    cx, cy, bw, bh = face.box * zoom
    return frame, (x + cx - bw / 2, y + cy - bh / 2, max(bw, bh))


def candidates(bundle_folder: Path) -> dict[str, Detector]:
    """The detectors by name; HOG only where dlib is installed."""
    bundle = load_bundle(bundle_folder)
    cpu = CpuBackend(bundle, detector_roles(bundle, "blazeface"))
    named: dict[str, Detector] = {
        "Haar": open_detector(bundle, "haar", cpu, min_face=SMALLEST),
        "BlazeFace float, whole frame": detector.float_blazeface(
            blazeface.weights_file().read_bytes(), min_face=SMALLEST, tiles=0
        ),
        "BlazeFace int8, whole frame": open_detector(bundle, "blazeface", cpu, min_face=SMALLEST, tiles=0),
        "BlazeFace int8, 1 row": open_detector(bundle, "blazeface", cpu, min_face=SMALLEST, tiles=1),
        "BlazeFace int8, 2 rows": open_detector(bundle, "blazeface", cpu, min_face=SMALLEST, tiles=2),
    }
    try:
        named["HOG"] = open_detector(bundle, "hog", cpu, min_face=36)
    except ConfigError as error:
        print(error, file=sys.stderr)
    return named


def shipped(bundle_folder: Path) -> dict[str, Detector]:
    """What a device searches with when nothing is configured."""
    bundle = load_bundle(bundle_folder)
    cpu = CpuBackend(bundle, detector_roles(bundle, "auto"))
    return {
        "searched in the frame (`v4l2`, `rtsp`)": open_detector(bundle, "auto", cpu),
        f"searched in {LORES_WIDTH}×360 (`picamera2`)": InLores(open_detector(bundle, "auto", cpu)),
    }


def false(box: FaceBox, place: Place, heads: list[tuple[int, int, int, int]]) -> bool:
    """Whether a box lies neither at the pasted face nor on a head."""
    x, y = box.centre
    here = (place[0], place[1], place[0] + place[2], place[1] + place[2])
    return not any(left <= x <= right and top <= y <= bottom for left, top, right, bottom in (here, *heads))


def measure(named: dict[str, Detector], rooms: list[Room], cells: Cells, count: int) -> Measured:
    """Every detector on the same frames."""
    out = Measured()
    for kind in ("unmasked", "masked"):
        people = faces(kind, count)
        with bar(f"{kind} faces") as show:
            for number, (width, level) in enumerate(cells):
                hits: dict[str, list[bool]] = defaultdict(list)
                for (frame, heads), place in scenes(people, rooms, width, level):
                    for name, candidate in named.items():
                        began = time.process_time()
                        boxes = candidate.detect(frame, thorough=True)
                        out.ms[name].append(1000 * (time.process_time() - began))
                        hits[name].append(in_scene.match(boxes, *(round(v) for v in place)) is not None)
                        out.false[name].append(sum(false(box, place, heads) for box in boxes))
                out.found |= {(kind, name, width, level): metrics.share(np.array(hit)) for name, hit in hits.items()}
                show(number + 1, len(cells))
    return out


def tables(done: Measured, cells: Cells) -> str:
    """Markdown."""
    lines = []
    for kind in ("unmasked", "masked"):
        n = done.found[kind, next(iter(done.ms)), *cells[0]]["n"]
        heads = [f"{size} px" if level == 1 else f"{size} px × {level}" for size, level in cells]
        lines += [
            f"| {kind}, n = {n} | " + " | ".join([*heads, "ms a frame"]) + " |",
            "|---|" + "--:|" * (len(heads) + 1),
        ]
        for name, times in done.ms.items():
            shares = " | ".join(f"{100 * done.found[kind, name, *cell]['accuracy']:.0f}" for cell in cells)
            lines.append(f"| {name} | {shares} | {np.median(times):.1f} |")
        lines.append("")
    lines += ["| all frames | false finds a frame | n |", "|---|--:|--:|"]
    lines += [f"| {name} | {np.mean(false):.3f} | {len(false)} |" for name, false in done.false.items()]
    return "\n".join(lines)


def plot(done: Measured, path: Path) -> None:
    """Recall over size and over brightness, unmasked above masked."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    styles = dict(zip(done.ms, ("k-", "C0--", "C0-", "C1-", "C3-", "k:"), strict=False))
    figure, axes = plt.subplots(2, 2, figsize=(11, 7), sharey=True, layout="constrained")
    for row, kind in zip(axes, ("unmasked", "masked"), strict=True):
        for at, (axis, ticks) in enumerate(zip(row, (SIZES, LEVELS), strict=True)):
            for name in done.ms:
                cells = [(AT, tick) if at else (tick, 1.0) for tick in ticks]
                shares = [100 * done.found[kind, name, *cell]["accuracy"] for cell in cells]
                label = f"{name}: {np.median(done.ms[name]):.0f} ms a frame"
                axis.plot(ticks, shares, styles[name], marker="o", markersize=3, label=label)
            axis.set_xscale("log")
            axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axis.minorticks_off()
            axis.set_ylim(-3, 103)
            axis.set_xlabel(
                f"brightness of the frame, faces {AT} px wide" if at else "width of the face, px of 480×270"
            )
            axis.grid(alpha=0.3)
        row[0].set_ylabel(f"{kind} faces found, %")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3, fontsize=9)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure, print the tables, draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--faces", type=int, default=150, help="of each kind")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--shipped", action="store_true", help="a device's defaults, in 1280×720")
    args = parser.parse_args()
    if args.shipped and args.plot:
        parser.error("--plot draws the detectors side by side, not --shipped")
    cv2.setNumThreads(1)
    rooms = [Room(image, HEADS[clip]) for clip, images in in_scene.by_clip().items() for image in images]
    if args.shipped:
        named, cells, rooms = shipped(args.bundle), SHIPPED, [widened(room) for room in rooms]
    else:
        named, cells = candidates(args.bundle), CELLS
    done = measure(named, rooms, cells, args.faces)
    print(tables(done, cells))
    if args.plot:
        plot(done, args.plot)


if __name__ == "__main__":
    main()
