"""Turning a picture that a camera mounted sideways or upside down gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import cv2
import numpy as np

if TYPE_CHECKING:
    from edge.types import U8

TURNS: Final = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}


def turned(image: U8, degrees: int) -> U8:
    """A copy of uint8 (H, W) or (H, W, 3) turned clockwise by 90, 180 or 270 degrees; by 0 the image itself."""
    return cv2.rotate(image, TURNS[degrees]).astype(np.uint8, copy=False) if degrees else image
