"""Whether the camera can see at all: `ok`, `dark`, `covered`. "Nobody" is only said of a scene that is ok."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import cv2
import numpy as np

from edge.preprocess import to_grey

if TYPE_CHECKING:
    from edge.types import U8, Scene

DARK: Final = 20.0
"""Mean grey level below which nothing can be said (one of the papers found no face under 20 lux)."""
FLAT: Final = 6.0
"""Standard deviation of the shrunken frame below which the lens is taken to be covered."""


def look(image: U8) -> Scene:
    """Judge one frame, uint8 (H, W) or (H, W, 3)."""
    small = to_grey(cv2.resize(image, (64, 48), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False))
    if float(small.mean()) < DARK:
        return "dark"
    return "covered" if float(small.std()) < FLAT else "ok"
