"""Parts of a frame: squares that cover it, and close ones around faces."""

from __future__ import annotations

import math
from functools import cache
from typing import Final, NamedTuple

import numpy as np

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


def room(box: Place, frame: Region) -> Region:
    """A box with half a width to spare, or up to the frame's border: what a region has to hold to show it whole."""
    return around(box, 2.0, frame)


def holds(region: Region, room: Region) -> bool:
    """Whether a box's `room` lies in a region. A few dozen of these cost less one by one than as arrays."""
    return (
        region.x <= room.x
        and region.y <= room.y
        and room.x + room.w <= region.x + region.w
        and room.y + room.h <= region.y + region.h
    )


def shows(region: Region, room: Region, width: float) -> bool:
    """Whether a region holds the room of a box of this width, and the box is large enough to be found there."""
    return width * SIDE >= SMALLEST * max(region.w, region.h) and holds(region, room)
