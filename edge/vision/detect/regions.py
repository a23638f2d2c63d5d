"""Parts of a frame: squares that cover it, and close ones around faces."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

SIDE: Final = 128
"""Side of the network's input in pixels."""
SMALLEST: Final = 24
"""Width in the network's input of the smallest boxes that are found reliably (docs/detectors.md)."""
LAP: Final = 1 / 3
"""Share of a square that the next one covers too: a face on the border of one is whole in the other."""
FOLLOW: Final = 3.0
"""Side of the square in which a face is followed, in widths of its box: it may move by one between two frames."""

Place = tuple[float, float, float, float]
"""A box: x and y of the centre, width, height."""


class Region(NamedTuple):
    """A part of a frame that is shown to the network, in frame pixels."""

    x: int
    y: int
    w: int
    h: int


@cache
def regions(width: int, height: int, rows: int) -> tuple[Region, ...]:
    """The whole frame, then squares that cover it in `rows` rows along its short side, overlapping by `LAP`."""
    whole = Region(0, 0, width, height)
    if rows < 1:
        return (whole,)
    side = math.ceil(min(width, height) / (rows - (rows - 1) * LAP))
    steps = []
    for length in (width, height):
        count = math.ceil((length - LAP * side) / ((1 - LAP) * side) - 1e-6)
        steps.append(np.linspace(0, length - side, max(1, count)).round().astype(int).tolist())
    return (whole, *(Region(x, y, side, side) for y in steps[1] for x in steps[0]))


def around(box: Place, widths: float, frame: Region) -> Region:
    """The square of `widths` widths around a box, moved into the frame, or cut to it."""
    x, y, w, h = box
    side = min(max(1, round(widths * max(w, h))), frame.w, frame.h)
    left, top = (min(max(0, round(at - side / 2)), length - side) for at, length in ((x, frame.w), (y, frame.h)))
    return Region(left, top, side, side)


def holds(regions: Sequence[Region], boxes: Sequence[Place], frame: Region) -> NDArray[np.bool_]:
    """Whether a box lies in a region of the frame with half a width to spare, or up to the frame's border: (B, R)."""
    if not (boxes and regions):
        return np.zeros((len(boxes), len(regions)), bool)
    shown = np.array(regions, np.float64).reshape(-1, 4)
    wanted = np.array([around(box, 2.0, frame) for box in boxes], np.float64).reshape(-1, 1, 4)
    starts = (shown[:, :2] <= wanted[..., :2]).all(axis=2)
    return np.asarray(starts & (wanted[..., :2] + wanted[..., 2:] <= shown[:, :2] + shown[:, 2:]).all(axis=2))


def shows(regions: Sequence[Region], boxes: Sequence[Place], frame: Region) -> NDArray[np.bool_]:
    """Whether a region holds a box, large enough to be found there: (B, R)."""
    held = holds(regions, boxes, frame)
    if not held.any():
        return held
    sides = np.array([max(region.w, region.h) for region in regions])
    widths = np.array([box[2] for box in boxes]).reshape(-1, 1)
    return np.asarray(held & (widths * SIDE >= SMALLEST * sides))
