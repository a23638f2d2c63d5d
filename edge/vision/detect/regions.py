"""Parts of a frame: squares that cover it, and close ones around faces."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

LAP: Final = 1 / 3
"""Share of a square that the next one covers too: a face on the border of one is whole in the other."""
CLOSE: Final = 3.0
"""Side of the square around a face, in widths of its box: it may move by one between two frames and is still whole."""


class Region(NamedTuple):
    """A part of a frame that is shown to the network, in frame pixels."""

    x: int
    y: int
    w: int
    h: int


def regions(width: int, height: int, rows: int) -> list[Region]:
    """The whole frame, then squares that cover it in `rows` rows along its short side, overlapping by `LAP`."""
    whole = Region(0, 0, width, height)
    if rows < 1:
        return [whole]
    side = math.ceil(min(width, height) / (rows - (rows - 1) * LAP))
    steps = []
    for length in (width, height):
        count = math.ceil((length - LAP * side) / ((1 - LAP) * side) - 1e-6)
        steps.append(np.linspace(0, length - side, max(1, count)).round().astype(int).tolist())
    return [whole, *(Region(x, y, side, side) for y in steps[1] for x in steps[0])]


def close_up(box: Sequence[float], width: int, height: int) -> Region:
    """The square around a box (x and y of the centre, width, height), moved into a frame of that size."""
    side = min(max(1, round(CLOSE * max(box[2], box[3]))), width, height)
    x, y = (min(max(0, round(at - side / 2)), length - side) for at, length in zip(box, (width, height), strict=False))
    return Region(x, y, side, side)
