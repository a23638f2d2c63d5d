"""Which parts of a stream's frames are searched: what changed at once, everything else in turn, as the time allows."""

from __future__ import annotations

import math
import time
from collections import deque
from typing import TYPE_CHECKING, Final

import cv2
import numpy as np

from edge.vision.preprocess import to_grey

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edge.types import U8
    from edge.vision.detect.regions import Region

EVERY: Final = 10
"""Every part of a still picture is searched once in so many frames."""
MOVED: Final = 8
"""Grey levels by which a pixel of the shrunken frame differs where something moved: noise stays below 4."""
SMALL: Final = 64
"""Longer side of the shrunken frame in which movement is looked for."""
LOOKS: Final = 64
"""Frames whose fastest says what a search costs: the machine's own speed, not what else it does at the moment."""


class Schedule:
    """One stream's."""

    def __init__(self, budget_ms: float | None = None, clock: Callable[[], float] = time.perf_counter) -> None:
        """`budget_ms` of searching a frame, by `clock` in seconds; None: all that is due, whatever it takes."""
        self._budget, self._clock = budget_ms, clock
        self._took: deque[float] = deque(maxlen=LOOKS)
        self._began = 0.0
        self._age: dict[Region, int] = {}
        self._shown: dict[Region, U8] = {}

    @property
    def searches(self) -> float:
        """How many searches a frame the budget pays; until the first was timed, one."""
        if self._budget is None:
            return math.inf
        return max(1, self._budget // (1000 * min(self._took))) if self._took else 1

    def due(self, image: U8, parts: Sequence[Region], close: Sequence[Region]) -> list[Region]:
        """Parts to search in this frame, uint8 (H, W) or (H, W, 3), with those of `close` that the budget pays.

        The first part, if it is due, comes before all; `close`, the most urgent first, before the other parts. Of
        these a tenth is due in every frame and each in which something moved since it was searched; what waited
        longest comes first.
        """
        small = _shrunk(image)
        if self._age.keys() != set(parts):
            self._age, self._shown = dict.fromkeys(parts, EVERY), {}
        zoom = small.shape[1] / image.shape[1]
        now = {part: _cut(small, part, zoom) for part in parts}
        moved = {part for part in parts if part not in self._shown or _differ(now[part], self._shown[part])}
        waiting = sorted(parts, key=lambda part: -self._age[part])
        asked = moved.union(waiting[: math.ceil(len(parts) / EVERY)])
        left = self.searches
        first = [part for part in parts[:1] if part in asked]
        others = [part for part in waiting if part in asked and part not in first]
        left -= len(first)
        near = list(close[: int(max(0, min(left, len(close))))])
        # Whatever the budget, something is searched in turn: nobody waits for ever.
        others = others[: max(0 if first and near else 1, int(min(left - len(near), len(others))))]
        for part in parts:
            self._age[part] += 1
        for part in (*first, *others):
            self._age[part], self._shown[part] = 0, now[part]
        return [*first, *near, *others]

    def begin(self) -> None:
        """A search begins."""
        self._began = self._clock()

    def end(self, searches: int) -> None:
        """So many have ended."""
        if searches:
            self._took.append(max((self._clock() - self._began) / searches, 1e-6))


def _shrunk(image: U8) -> U8:
    zoom = SMALL / max(image.shape[:2])
    size = max(1, round(image.shape[1] * zoom)), max(1, round(image.shape[0] * zoom))
    return to_grey(cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False))


def _cut(small: U8, part: Region, zoom: float) -> U8:
    left, top = int(part.x * zoom), int(part.y * zoom)
    return small[top : math.ceil((part.y + part.h) * zoom), left : math.ceil((part.x + part.w) * zoom)]


def _differ(a: U8, b: U8) -> bool:
    return int(cv2.absdiff(a, b).max(initial=0)) >= MOVED
