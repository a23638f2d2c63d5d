"""BlazeFace (Bazarevsky et al. 2019, arXiv:1907.05047), MediaPipe's short-range network in int8.

It is shown 128×128 pixels and finds faces of `SMALLEST` pixels there, in a large frame only near ones. For those far
away, squares of the frame are searched too.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Final

import cv2
import numpy as np

from edge.types import FaceBox
from edge.vision.detect.overlap import SAME, iou, one_per_face, weighted_nms
from edge.vision.detect.regions import LAP, close_up, regions
from edge.vision.detect.schedule import Schedule

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from edge.bundle.manifest import AnchorGrid
    from edge.types import F32, U8
    from edge.vision.detect.regions import Region

SIDE: Final = 128
"""Side of the network's input in pixels."""
SMALLEST: Final = 24
"""Width in the network's input of the smallest boxes that are found reliably (docs/detectors.md)."""
MOST_ROWS: Final = 2
"""Rows of squares unless `tiles` says more: 8 squares of a 16:9 frame, one of which is due in each frame."""
SURE: Final = 0.65
"""Least score of a new face; patches on clothes reached .64 (docs/detectors.md)."""
LEAST: Final = 0.5
"""Least score of a face that was there in the frame before (as Zhang et al. 2022, ByteTrack, arXiv:2110.06864)."""
LEVEL_FROM: Final = 30.0
"""Least lean of the eyes in degrees that a box is turned by: less costs more than it wins (docs/decisions/0014)."""
CLEAR: Final = 24
"""Width in the network's input from which a new face is believed at first sight; smaller ones are looked at closely."""
CANDIDATE: Final = 0.5
"""Least score of what is looked at closely."""
CUT: Final = 0.1
"""What a box counts that runs over the border of its square: another one shows all of the face."""


_NOBODY: Final = np.empty((0, 4), np.float32)


class BlazeFace:
    """See `edge.vision.detect.Detector`; box scores are the network's probabilities."""

    kind = "blazeface"

    def __init__(
        self,
        answer: Callable[[U8], NDArray[np.int8]],
        anchors: Sequence[AnchorGrid],
        *,
        min_face: int = 36,
        tiles: int | None = None,
        level_from: float = LEVEL_FROM,
        budget_ms: float | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Prepare the anchors.

        Args:
            answer: the network: uint8 BGR (N, 128, 128, 3) → int8 (N, A, 17).
            anchors: what the A rows and the 17 columns mean (manifest: `anchors` of the role `detector`).
            min_face: smallest box in frame pixels.
            tiles: rows of squares that are searched besides the whole frame; None: as many as `min_face` needs, at most
                `MOST_ROWS`.
            level_from: least lean of the eyes in degrees that a box is turned by; below it stands upright.

        """
        self._answer, self._min_face, self._tiles, self._level_from = answer, min_face, tiles, level_from
        counts = [g.cells**2 * g.each for g in anchors]
        self._step = np.repeat(np.array([g.step for g in anchors], np.float32), counts, axis=0)
        self._zero = np.repeat(np.array([g.zero for g in anchors], np.float32), counts, axis=0)
        self._centres = np.concatenate([_centres(g.cells, g.each) for g in anchors])
        self._least = (math.log(CANDIDATE / (1 - CANDIDATE)) - self._zero[:, 0]) / self._step[:, 0]
        self._schedule = Schedule(budget_ms, clock)
        self._last = _NOBODY
        self._missed = 0

    def detect(self, image: U8, *, thorough: bool = False) -> list[FaceBox]:
        """See `edge.vision.detect.Detector.detect`.

        In a stream the parts of the frame in which something moved are searched, the others in turn, as many as the
        budget pays, and what was a face in the last frame is looked at closely; `thorough` searches all.
        """
        height, width = image.shape[:2]
        if min(height, width) < self._min_face:
            return []
        parts = regions(width, height, self._rows(width, height))
        if thorough:
            self._last = _NOBODY
        near = [close_up(box, width, height) for box in self._last]
        shown = parts if thorough else self._schedule.due(image, parts, near)
        self._schedule.begin()
        best, merged = self._faces(image, shown)
        known = (best >= LEAST) & (iou(merged[:, :4], self._last).max(axis=1, initial=0.0) > SAME)
        doubtful = ~known & (merged[:, 2] * merged[:, 6] < CLEAR)
        looks = [close_up(box, width, height) for box in merged[doubtful]]
        if looks:
            sure, closer = self._faces(image, looks)
            sure, closer = sure[sure >= SURE], closer[sure >= SURE]
            there = iou(closer[:, :4], merged[doubtful, :4]).max(axis=1, initial=0.0) > SAME
        kept = known | (~doubtful & (best >= SURE))
        best, merged = best[kept], merged[kept]
        if looks:
            best, merged = np.concatenate([best, sure[there]]), np.concatenate([merged, closer[there]])
        self._schedule.end(len(shown) + len(looks))
        self._last = _NOBODY if thorough else merged[:, :4]
        found = [FaceBox(float(x - w / 2), float(y - h / 2), float(w), float(h), self._roll(*eyes), float(score))
                 for score, (x, y, w, h, *eyes, _) in zip(best, merged, strict=True)]  # fmt: skip
        return [b for b in one_per_face(found) if 0 <= b.centre[0] < width and 0 <= b.centre[1] < height]

    def _roll(self, across: float, down: float) -> float:
        """Angle of the line from the picture's left eye to the right one, 0 below `level_from`."""
        roll = math.degrees(math.atan2(down, across))
        return roll if abs(roll) >= self._level_from else 0.0

    def _rows(self, width: int, height: int) -> int:
        if self._tiles is not None:
            return self._tiles
        largest = self._min_face * SIDE / SMALLEST
        if max(width, height) <= largest:
            return 0
        return min(MOST_ROWS, math.ceil((min(width, height) / largest - LAP) / (1 - LAP)))

    def _faces(self, image: U8, shown: Sequence[Region]) -> tuple[F32, F32]:
        """Scores (F,) and boxes (F, 7) of the faces in these regions: `_look`'s, one a face, best first."""
        scores, boxes = self._look(image, shown)
        large = boxes[:, 2] >= self._min_face
        # An error of a pixel in the network's input is the smaller in the frame, the closer the look.
        return weighted_nms(scores[large], boxes[large], (scores * boxes[:, 6] ** 2)[large])

    def _look(self, image: U8, shown: Sequence[Region]) -> tuple[F32, F32]:
        """Scores (N,), boxes (N, 7) of what looks like a face in these regions.

        Of a box: centre, size, and from the picture's left eye to the right one, in frame pixels; how many pixels of
        the network's input are one of the frame.
        """
        pictures, zooms, margins = zip(
            *(letterbox(image[r.y : r.y + r.h, r.x : r.x + r.w]) for r in shown), strict=True
        )
        raw = self._answer(np.stack(pictures))
        of, anchor = np.nonzero(raw[..., 0] >= self._least)
        values = raw[of, anchor, :9] * self._step[anchor, :9] + self._zero[anchor, :9]
        zoom = np.array(zooms, np.float32)[of, None]
        inside = (self._centres[anchor] + values[:, 1:3] - np.array(margins, np.float32)[of]) / zoom
        size, eyes = values[:, 3:5] / zoom, (values[:, 7:9] - values[:, 5:7]) / zoom
        part = np.array(shown, np.float32)[of]
        over = (inside < size / 2) & (part[:, :2] > 0)
        ends = part[:, :2] + part[:, 2:] < (image.shape[1], image.shape[0])
        over |= (inside + size / 2 > part[:, 2:]) & ends
        scores = np.where(over.any(axis=1), CUT, 1.0) / (1 + np.exp(-values[:, 0]))
        boxes = np.concatenate([inside + part[:, :2], size, eyes, zoom], axis=1)
        return scores.astype(np.float32), boxes.astype(np.float32)


def _centres(cells: int, each: int) -> F32:
    """Centres (cells² × each, 2) of the anchors of a map, x first, in pixels of the input."""
    at = (np.arange(cells, dtype=np.float32) + 0.5) * (SIDE / cells)
    centres: F32 = np.stack(np.meshgrid(at, at), axis=-1).reshape(-1, 2).repeat(each, axis=0)
    return centres


def letterbox(image: U8) -> tuple[U8, float, tuple[int, int]]:
    """The network's input of a grey or BGR uint8 image: shrunk or enlarged, centred on black.

    Returns: uint8 (128, 128, 3) BGR, how many of its pixels are one of the image, (x, y) of the image's corner in it.
    """
    height, width = image.shape[:2]
    zoom = SIDE / max(height, width)
    w, h = max(1, round(width * zoom)), max(1, round(height * zoom))
    small = cv2.resize(image, (w, h), interpolation=cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR)
    if small.ndim == 2:
        small = cv2.cvtColor(small, cv2.COLOR_GRAY2BGR)
    x, y = (SIDE - w) // 2, (SIDE - h) // 2
    out = np.zeros((SIDE, SIDE, 3), np.uint8)
    out[y : y + h, x : x + w] = small
    return out, zoom, (x, y)
