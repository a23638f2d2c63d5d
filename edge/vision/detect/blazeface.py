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
from edge.vision.detect.overlap import OVERLAP, SAME, covered, iou, one_per_face, weighted_nms
from edge.vision.detect.regions import LAP, SIDE, SMALLEST, around, holds, regions, room
from edge.vision.detect.schedule import Budget, Schedule
from edge.vision.preprocess import shrink

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from edge.bundle.manifest import AnchorGrid
    from edge.types import F32, U8
    from edge.vision.detect.regions import Place, Region

MOST_ROWS: Final = 3
"""Rows of squares unless `tiles` says more: 18 squares of a 16:9 frame."""
SURE: Final = 0.65
"""Least score of a new face; patches on clothes reached .64 (docs/detectors.md)."""
LEAST: Final = 0.5
"""Least score of a face that was there in the frame before (as Zhang et al. 2022, ByteTrack, arXiv:2110.06864)."""
LEVEL_FROM: Final = 30.0
"""Least lean of the eyes in degrees that a box is turned by: less costs more than it wins (docs/decisions/0014)."""
CLEAR: Final = 32
"""Width in the network's input from which a new face is believed at first sight; smaller ones are looked at closely."""
CANDIDATE: Final = 0.25
"""Least score of what is looked at closely."""
CLOSER: Final = (2.0, 4.0)
"""Sides of the squares of a close look, in widths of the box: the mean of both counts (docs/decisions/0026)."""
CUT: Final = 0.1
"""What a box counts that runs over the border of its square: another one shows all of the face."""


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
        clear_from: float = CLEAR,
        budget_ms: Budget = None,
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
            clear_from: width in the network's input from which a new face is believed without a closer look.
            budget_ms: time to search a frame of a stream, by `clock` in seconds, see `Budget`; None: whatever it takes.
            clock: seconds.

        """
        self._answer, self._min_face, self._tiles, self._level_from = answer, min_face, tiles, level_from
        self._smallest: float = min_face  # in pixels of the image in hand
        counts = [g.cells**2 * g.each for g in anchors]
        self._step = np.repeat(np.array([g.step for g in anchors], np.float32), counts, axis=0)
        self._zero = np.repeat(np.array([g.zero for g in anchors], np.float32), counts, axis=0)
        self._centres = np.concatenate([_centres(g.cells, g.each) for g in anchors])
        self._least = (math.log(CANDIDATE / (1 - CANDIDATE)) - self._zero[:, 0]) / self._step[:, 0]
        self._clear_from = clear_from
        self._schedule = Schedule(budget_ms, clock)
        self._last: list[Place] = []

    def detect(self, image: U8, *, thorough: bool = False, zoom: float = 1.0) -> list[FaceBox]:
        """See `edge.vision.detect.Detector.detect`.

        In a stream the parts of the frame in which something moved are searched, the others in turn, as many as the
        budget pays, and faces of the last frame are followed; `thorough` searches all.
        """
        height, width = image.shape[:2]
        self._smallest = self._min_face / zoom
        if min(height, width) < self._smallest:
            return []
        parts = regions(width, height, self._rows(width, height))
        last: list[Place] = [] if thorough else self._last
        self._schedule.begin()
        shown = parts if thorough else self._schedule.choose(image, parts, last)
        best, merged = self._one_a_face(*self._look(image, shown)[1:])
        if not (len(best) or last):  # nobody is there, nor was: nothing of what follows has anything to do
            if not thorough:
                self._schedule.end(len(shown))
            return []
        known = (best >= LEAST) & (iou(merged[:, :4], _table(last)).max(axis=1, initial=0.0) > SAME)
        small = merged[:, 2] * merged[:, 6] < self._clear_from
        found = [*zip(best[known], merged[known], strict=True)]
        new = ~known & ~small & (best >= SURE)
        found += zip(best[new], merged[new], strict=True)
        # Whatever looks like a small face within a face is a part of it, and would be dropped with its box.
        doubtful = merged[~known & small]
        if len(doubtful):
            within = covered(doubtful[:, :4], merged[known | new, :4]).max(axis=1, initial=0.0) >= OVERLAP
            doubtful = doubtful[~within]
        pays = (
            len(doubtful) if thorough else max(1, int(min(self._schedule.searches, 1000) - len(shown)) // len(CLOSER))
        )
        looked, put_off = doubtful[:pays], [_place(box) for box in doubtful[pays:]]
        found += [(score, box) for score, box in self._closely(image, looked, parts[0]) if score >= SURE]
        if not thorough:
            self._schedule.end(len(shown) + len(CLOSER) * len(looked))
            self._follow(last, [_place(box) for _, box in found], put_off, shown, parts[0])
        boxes = one_per_face([self._box(score, box) for score, box in found])
        return [b for b in boxes if 0 <= b.centre[0] < width and 0 <= b.centre[1] < height]

    def forget(self) -> None:
        """See `edge.vision.detect.Detector.forget`."""
        self._last = []
        self._schedule.forget()

    def _follow(
        self, last: list[Place], found: list[Place], put_off: list[Place], shown: Sequence[Region], frame: Region
    ) -> None:
        """Remember the faces of this frame, and those of the last one that no time was left to look at."""
        there = iou(_table(last), _table(found)).max(axis=1, initial=0.0) > SAME
        for place, again in zip(last, there, strict=True):
            if again:
                continue
            at = room(place, frame)
            if any(holds(part, at) for part in shown):
                put_off.append(place)
            else:
                found.append(place)
        for place in put_off:
            self._schedule.put_off(place)
        self._last = found

    def _closely(self, image: U8, doubtful: F32, frame: Region) -> list[tuple[float, F32]]:
        """Of each doubtful box the mean score of close looks at it, and the box as they see it. One request for all."""
        if not len(doubtful):
            return []
        near = [around(_place(box), widths, frame) for box in doubtful for widths in CLOSER]
        of, scores, boxes = self._look(image, near)
        looks = [self._one_a_face(scores[of == n], boxes[of == n]) for n in range(len(near))]
        each = len(CLOSER)
        return [self._judged(box, looks[each * n : each * (n + 1)]) for n, box in enumerate(doubtful)]

    @staticmethod
    def _judged(box: F32, looks: Sequence[tuple[F32, F32]]) -> tuple[float, F32]:
        """What close looks say of a box: their mean score, and where they see it."""
        same = [iou(boxes[:, :4], box[None, :4])[:, 0] > SAME for _, boxes in looks]
        best = np.concatenate([scores[there] for (scores, _), there in zip(looks, same, strict=True)])
        if not len(best):
            return 0.0, box
        boxes = np.concatenate([boxes[there] for (_, boxes), there in zip(looks, same, strict=True)])
        score = sum(float(scores[there].max(initial=0.0)) for (scores, _), there in zip(looks, same, strict=True))
        return score / len(CLOSER), np.average(boxes, axis=0, weights=best * boxes[:, 6] ** 2).astype(np.float32)

    def _box(self, score: float, box: F32) -> FaceBox:
        x, y, w, h, across, down, _ = (float(v) for v in box)
        return FaceBox(x - w / 2, y - h / 2, w, h, self._roll(across, down), float(score))

    def _roll(self, across: float, down: float) -> float:
        """Angle of the line from the picture's left eye to the right one, 0 below `level_from`."""
        roll = math.degrees(math.atan2(down, across))
        return roll if abs(roll) >= self._level_from else 0.0

    def _rows(self, width: int, height: int) -> int:
        if self._tiles is not None:
            return self._tiles
        largest = self._smallest * SIDE / SMALLEST
        if max(width, height) <= largest:
            return 0
        return min(MOST_ROWS, math.ceil((min(width, height) / largest - LAP) / (1 - LAP)))

    def _one_a_face(self, scores: F32, boxes: F32) -> tuple[F32, F32]:
        """Scores (F,) and boxes (F, 7) of what `_look` saw, one a face, best first."""
        if not len(scores):
            return scores, boxes
        large = boxes[:, 2] >= self._smallest
        # An error of a pixel in the network's input is the smaller in the frame, the closer the look.
        weights = scores * boxes[:, 6] ** 2 * np.where(scores >= LEAST, np.float32(1), np.float32(1e-6))
        return weighted_nms(scores[large], boxes[large], weights[large])

    def _look(self, image: U8, shown: Sequence[Region]) -> tuple[NDArray[np.intp], F32, F32]:
        """Places in `shown` (N,), scores (N,), boxes (N, 7) of what looks like a face in these regions.

        Of a box: centre, size, and from the picture's left eye to the right one, in frame pixels; how many pixels of
        the network's input are one of the frame.
        """
        if not shown:
            return np.zeros(0, np.intp), np.empty(0, np.float32), np.empty((0, 7), np.float32)
        pictures, zooms, margins = zip(
            *(letterbox(image[r.y : r.y + r.h, r.x : r.x + r.w]) for r in shown), strict=True
        )
        raw = self._answer(np.stack(pictures))
        of, anchor = np.nonzero(raw[..., 0] >= self._least)
        if not len(of):
            return of, np.empty(0, np.float32), np.empty((0, 7), np.float32)
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
        return of, scores.astype(np.float32), boxes.astype(np.float32)


def _place(box: F32) -> Place:
    x, y, w, h = (float(v) for v in box[:4])
    return x, y, w, h


def _table(places: Sequence[Place]) -> F32:
    return np.array(places, np.float32).reshape(-1, 4)


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
    small = shrink(image, w, h, last=cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR)
    if small.ndim == 2:
        small = cv2.cvtColor(small, cv2.COLOR_GRAY2BGR).astype(np.uint8, copy=False)
    if w == h == SIDE:
        return small, zoom, (0, 0)
    x, y = (SIDE - w) // 2, (SIDE - h) // 2
    out = np.zeros((SIDE, SIDE, 3), np.uint8)
    out[y : y + h, x : x + w] = small
    return out, zoom, (x, y)
