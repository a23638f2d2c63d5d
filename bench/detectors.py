"""Which faces each detector finds, and what a frame costs: docs/detectors.md.

    .venv/bin/python bench/detectors.py --bundle models/fer-2026.11 [--faces N] [--plot docs/detectors.png]

Real photos with and without masks (EDGE_DATA) are set into frames of the clips (480×270) at several sizes and, at one
size, several brightness levels of the whole frame. A face is found when a box shares at least `in_scene.OVERLAP` of its
union with the place where MediaPipe's full-range network, which is none of the candidates, sees it in the photo alone.
Times are CPU time of one thread, medians over frames, so other work on the machine does not count.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import cv2
import numpy as np
from edge_quantize import blazeface, in_scene
from edge_quantize.data import data_root
from edge_quantize.detector import float_blazeface
from edge_quantize.metrics import share
from edge_quantize.progress import bar

from edge.bundle import load_bundle
from edge.detect.choose import open_detector
from edge.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from edge.detect import Detector
    from edge.types import U8

SIZES: Final = (24, 36, 48, 64, 90, 128)
"""Widths of the pasted face's box in pixels."""
LEVELS: Final = (1.0, 0.5, 0.25, 0.12, 0.06)
"""Factors on every grey level of the frame, at the width `AT`."""
AT: Final = 64
MARGIN: Final = 0.6
"""How much of the photo around the face's box is pasted with it, in box widths on either side."""
SMALLEST: Final = 20


class Face(NamedTuple):
    """A photo cut around its only face, and the face's box there: centre x, y, width, height."""

    image: U8
    box: NDArray[np.float64]


def faces(kind: str, count: int) -> list[Face]:
    """Photos of one kind in which the full-range network sees exactly one face, at least 60 pixels wide."""
    from mediapipe.python.solutions.face_detection import FaceDetection

    judge, found = FaceDetection(model_selection=1, min_detection_confidence=0.5), []
    paths = sorted((data_root() / "masks_real" / kind).glob("*.jpg"))
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


def scenes(people: list[Face], rooms: list[U8], width: float, level: float) -> Iterator[tuple[U8, tuple[float, ...]]]:
    """Frames with one face each, and its box: x and y of its corner, side."""
    rng = np.random.default_rng(in_scene.SEED)
    for face in people:
        room = rooms[rng.integers(len(rooms))].copy()
        zoom = width / face.box[2]
        way = cv2.INTER_AREA if zoom < 1 else cv2.INTER_CUBIC
        small = cv2.resize(face.image, None, fx=zoom, fy=zoom, interpolation=way)[: room.shape[0], : room.shape[1]]
        h, w = small.shape[:2]
        x, y = int(rng.integers(0, room.shape[1] - w + 1)), int(rng.integers(0, room.shape[0] - h + 1))
        ramp = [np.minimum(1, (np.minimum(np.arange(n), np.arange(n)[::-1]) + 1) / max(1, 0.05 * n)) for n in (h, w)]
        alpha = np.minimum(ramp[0][:, None], ramp[1][None])[..., None]
        under = room[y : y + h, x : x + w]
        room[y : y + h, x : x + w] = np.rint(alpha * small + (1 - alpha) * under).astype(np.uint8)
        cx, cy, bw, bh = face.box * zoom
        yield np.rint(room * level).astype(np.uint8), (x + cx - bw / 2, y + cy - bh / 2, max(bw, bh))


def candidates(bundle_folder: Path) -> dict[str, Detector]:
    """The detectors by name; HOG only where dlib is installed."""
    bundle = load_bundle(bundle_folder)
    named: dict[str, Detector] = {
        "Haar": open_detector(bundle, "haar", min_face=SMALLEST),
        "BlazeFace float": float_blazeface(blazeface.weights_file().read_bytes(), min_face=SMALLEST, tiles=0),
        "BlazeFace int8": open_detector(bundle, "blazeface", min_face=SMALLEST, tiles=0),
        "BlazeFace int8, 1 row": open_detector(bundle, "blazeface", min_face=SMALLEST, tiles=1),
        "BlazeFace int8, 2 rows": open_detector(bundle, "blazeface", min_face=SMALLEST, tiles=2),
    }
    try:
        named["HOG"] = open_detector(bundle, "hog", min_face=36)
    except BackendError as error:
        print(error, file=sys.stderr)
    return named


def measure(
    named: dict[str, Detector], count: int
) -> tuple[dict[tuple[str, str, float, float], Any], dict[str, float]]:
    """Share found by (kind of face, detector, width, level), and ms a frame by detector."""
    rooms, spent = in_scene.backgrounds(), {name: [] for name in named}
    cells = [(float(size), 1.0) for size in SIZES] + [(float(AT), level) for level in LEVELS[1:]]
    table = {}
    for kind in ("unmasked", "masked"):
        people = faces(kind, count)
        with bar(f"{kind} faces") as show:
            for number, (width, level) in enumerate(cells):
                hits: dict[str, list[bool]] = {name: [] for name in named}
                for frame, (x, y, side) in scenes(people, rooms, width, level):
                    for name, detector in named.items():
                        began = time.process_time()
                        boxes = detector.detect(frame, thorough=True)
                        spent[name].append(time.process_time() - began)
                        hits[name].append(in_scene.match(boxes, round(x), round(y), round(side)) is not None)
                table |= {(kind, name, width, level): share(np.array(hit)) for name, hit in hits.items()}
                show(number + 1, len(cells))
    return table, {name: 1000 * float(np.median(times)) for name, times in spent.items()}


def rows(table: dict[tuple[str, str, float, float], Any], ms: dict[str, float]) -> str:
    """Markdown."""
    lines = []
    for kind in ("unmasked", "masked"):
        n = next(iter(table.values()))["n"]
        heads = [f"{size} px" for size in SIZES] + [f"{AT} px × {level}" for level in LEVELS[1:]]
        lines += [f"| {kind}, n = {n} | " + " | ".join(heads) + " | ms |", "|---|" + "--:|" * (len(heads) + 1)]
        cells = [(float(size), 1.0) for size in SIZES] + [(float(AT), level) for level in LEVELS[1:]]
        for name, cost in ms.items():
            shares = " | ".join(f"{100 * table[kind, name, *cell]['accuracy']:.0f}" for cell in cells)
            lines.append(f"| {name} | {shares} | {cost:.1f} |")
        lines.append("")
    return "\n".join(lines)


def plot(table: dict[tuple[str, str, float, float], Any], names: list[str], path: Path) -> None:
    """Recall over size and over brightness, unmasked above masked."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(11, 7), sharey=True, layout="constrained")
    for row, kind in zip(axes, ("unmasked", "masked"), strict=True):
        for axis, cells, at in (
            (row[0], [(float(s), 1.0) for s in SIZES], 0),
            (row[1], [(float(AT), v) for v in LEVELS], 1),
        ):
            for name in names:
                shares = [100 * table[kind, name, *cell]["accuracy"] for cell in cells]
                style = {"Haar": "k-", "HOG": "k:", "BlazeFace float": "C0--"}.get(name, "-")
                axis.plot([cell[at] for cell in cells], shares, style, marker="o", markersize=3, label=name)
            axis.set_xscale("log")
            axis.set_xticks([cell[at] for cell in cells], [f"{cell[at]:g}" for cell in cells])
            axis.minorticks_off()
            axis.set_xlabel("brightness of the frame" if at else "width of the face, pixels of a 480×270 frame")
            axis.grid(alpha=0.3)
        row[0].set_ylabel(f"{kind} faces found, %")
    axes[0, 0].legend(fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure, print the tables, draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--faces", type=int, default=150, help="of each kind")
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    named = candidates(args.bundle)
    table, ms = measure(named, args.faces)
    print(rows(table, ms))
    if args.plot:
        plot(table, list(named), args.plot)


if __name__ == "__main__":
    main()
