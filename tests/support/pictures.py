"""Pictures for tests of detectors: a portrait in an empty frame, and frames in which nobody is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import cv2
import numpy as np

if TYPE_CHECKING:
    from edge.types import U8


def on_canvas(face: U8, side: int = 160, width: int = 320, height: int = 320) -> U8:
    """The portrait, `side` pixels, in the middle of a grey frame."""
    image = np.full((height, width, 3), 128, np.uint8)
    x, y = (width - side) // 2, (height - side) // 2
    image[y : y + side, x : x + side] = cv2.resize(face, (side, side), interpolation=cv2.INTER_AREA)
    return image


def turned(image: U8, clockwise: float) -> U8:
    """The picture turned by degrees about its middle, its edge repeated."""
    size = image.shape[1], image.shape[0]
    matrix = cv2.getRotationMatrix2D((size[0] / 2, size[1] / 2), -clockwise, 1.0)
    return cv2.warpAffine(image, matrix, size, borderMode=cv2.BORDER_REPLICATE).astype(np.uint8)


NOBODY: Final[dict[str, U8]] = {
    "noise": np.random.default_rng(3).integers(0, 256, (240, 320, 3), np.uint8),
    "flat grey": np.full((240, 320), 128, np.uint8),
    "black": np.zeros((240, 320, 3), np.uint8),
    "one pixel": np.zeros((1, 1, 3), np.uint8),
    "one grey pixel": np.zeros((1, 1), np.uint8),
    "a strip": np.zeros((36, 4000, 3), np.uint8),
    "a strip lower than any face": np.zeros((19, 4000, 3), np.uint8),
}
