"""Whether a camera can see at all: `ok`, `dark`, `covered`, `frozen`. "Nobody" is only said of a scene that is ok."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final

import cv2
import numpy as np

from edge.vision.preprocess import shrink, to_grey

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from edge.types import U8, Scene

    Polygon = Sequence[tuple[float, float]]

DARK: Final = 20.0
"""Mean grey level below which nothing can be said."""
FLAT: Final = 6.0
"""Standard deviation of the shrunken frame below which the lens is taken to be covered."""
BLURRED: Final = 10.0
"""Variance of the shrunken frame's Laplacian below which the lens is taken to be covered or smeared.

Measured on the shared clips, two portraits and 150 photos: 130 and more as they are, 18 and more at a quarter of the
light, mostly under 10 behind a blur of a sixteenth of the width, where no face can be made out.
"""
FROZEN: Final = 10.0
"""Seconds of identical frames after which the camera is taken to have stuck. A sensor's noise makes two frames differ;
a network camera's encoder may repeat one, but not for longer than the way to its next key frame."""
ROWS: Final = 240
"""Rows of a frame, or some more, that are judged."""
SMALL: Final = (64, 48)
"""Width and height to which a frame is shrunk to be judged."""


def look(image: U8, visible: NDArray[np.bool_] | None = None) -> Scene:
    """Judge one frame, uint8 (H, W) or (H, W, 3), by its light, contrast and sharpness.

    `visible` (48, 64) leaves out what is False there.
    """
    return _scene(_grey_rows(image), visible)


def _grey_rows(image: U8) -> U8:
    """Some rows of a frame, grey: to read all of a large one takes as long as to search it."""
    return np.ascontiguousarray(to_grey(image[:: max(1, image.shape[0] // ROWS)]))


def _scene(rows: U8, visible: NDArray[np.bool_] | None) -> Scene:
    small = shrink(rows, *SMALL)
    edges = cv2.Laplacian(small, cv2.CV_32F)
    seen = None if visible is None else visible.astype(np.uint8)
    if seen is not None and not seen.any():
        return "covered"
    (((light,),), ((contrast,),)), (_, ((sharpness,),)) = (cv2.meanStdDev(one, mask=seen) for one in (small, edges))
    if light < DARK:
        return "dark"
    return "covered" if contrast < FLAT or sharpness**2 < BLURRED else "ok"


class Watch:
    """Judges one camera's frames in order, leaving out its privacy masks, and blacks these out."""

    def __init__(self, masks: Sequence[Polygon] = ()) -> None:
        """`masks`: polygons of (x, y) in shares (0-1) of the frame's width and height."""
        self._masks = [np.asarray(polygon, np.float64) for polygon in masks]
        self._visible = None
        if masks:
            canvas = self._black_out(np.full(SMALL[::-1], 255, np.uint8))
            # A pixel beside a mask mixes in what lies under it, and its Laplacian the mask's edge.
            self._visible = np.asarray(cv2.erode(canvas, np.ones((3, 3), np.uint8))) > 0
        self._print = 0
        self._since = float("-inf")

    def judge(self, image: U8, t: float, *, still: bool = False) -> Scene:
        """Scene of one frame at window time `t`. Stills are never frozen, nor is darkness: cameras clip it to black."""
        rows = _grey_rows(image)
        scene = _scene(rows, self._visible)
        fresh = zlib.crc32(rows.data)
        if fresh != self._print or still or t < self._since:
            self._print, self._since = fresh, t
        return "frozen" if scene != "dark" and t - self._since >= FROZEN else scene

    def black_out(self, *images: U8) -> None:
        """Fill the masks with black, in place, in pictures of the same view: uint8 (H, W) or (H, W, 3)."""
        for image in images:
            self._black_out(image)

    def _black_out(self, image: U8) -> U8:
        size = image.shape[1], image.shape[0]
        for polygon in self._masks:
            cv2.fillPoly(image, [np.rint(polygon * size).astype(np.int32)], (0, 0, 0))
        return image
