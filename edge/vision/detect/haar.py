"""Haar cascade detector (Viola and Jones 2001), upright and at a few head rotations.

The cascade is OpenCV's `haarcascade_frontalface_alt2`: on the clips at hand it finds the faces that
`frontalface_default` finds, without the false ones that the latter gives on turned pictures.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import cv2
import numpy as np

from edge.errors import BackendError
from edge.types import FaceBox
from edge.vision.detect.overlap import one_per_face
from edge.vision.detect.schedule import Rest
from edge.vision.preprocess import to_grey

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from edge.types import U8

CASCADE: Final = "haarcascade_frontalface_alt2.xml"
SMALLEST: Final = 20
"""Side of the cascade's own window in pixels."""
UPRIGHT_BONUS: Final = 1.1
"""A face found upright and turned is taken upright unless the turned answer is clearly stronger."""


class Haar:
    """See `edge.vision.detect.Detector`; box scores are the cascade's own last-stage weights."""

    kind = "haar"

    def __init__(
        self, *, min_face: int = 36, rotations: Sequence[float] = (0.0, -35.0, 35.0), max_side: int = 640
    ) -> None:
        """Load the cascade.

        `min_face` is the smallest face in frame pixels, `rotations` the head rolls to search in degrees
        clockwise, `max_side` the size to which a larger frame is shrunk for the search. Raises BackendError
        when OpenCV comes without its cascades (OpenCV 5 does).
        """
        path = Path(getattr(getattr(cv2, "data", None), "haarcascades", "")) / CASCADE
        msg = f"OpenCV {cv2.__version__} has no {CASCADE}: install opencv-python-headless 4.x"
        if not hasattr(cv2, "CascadeClassifier"):
            raise BackendError(msg)
        self._cascade = cv2.CascadeClassifier(str(path))
        if self._cascade.empty():
            raise BackendError(msg)
        self._min_face, self._rotations, self._max_side = min_face, tuple(rotations), max_side
        self._turn = 0
        self._rest = Rest(max(1, len(self._rotations) - 1))
        self._lately: set[float] = set()

    def forget(self) -> None:
        """See `edge.vision.detect.Detector.forget`."""
        self._rest.forget()
        self._lately.clear()

    def detect(self, image: U8, *, thorough: bool = False, zoom: float = 1.0) -> list[FaceBox]:
        """See `edge.vision.detect.Detector.detect`; none on frames smaller than the cascade's window.

        Searching every rotation costs a pass each. In a stream the first rotation and those that found a
        face at their last turn are searched in every frame, the others in turn, one a frame; `thorough`
        searches all. Of a picture that stands still with nobody in it, hardly a frame is searched.
        """
        height, width = image.shape[:2]
        shrink = min(1.0, self._max_side / max(height, width))
        if min(height, width) * shrink < SMALLEST:
            return []
        if not (thorough or self._rest.wanted(image)):
            return []
        if shrink < 1:  # before the conversion: an 8K frame is converted at its small size
            image = cv2.resize(image, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA).astype(
                np.uint8, copy=False
            )
        grey = to_grey(image)
        found: list[FaceBox] = []
        for angle in self._rotations if thorough else self._due():
            here = self._at(grey, angle, max(SMALLEST, round(self._min_face / zoom * shrink)))
            (self._lately.add if here else self._lately.discard)(angle)
            found += here
        if found:
            self._rest.found()
        boxes = [
            FaceBox(b.x / shrink, b.y / shrink, b.w / shrink, b.h / shrink, b.angle, b.score)
            for b in one_per_face(found)
        ]
        return [b for b in boxes if 0 <= b.centre[0] < width and 0 <= b.centre[1] < height]

    def _due(self) -> list[float]:
        first, *others = self._rotations
        if others:
            self._turn = (self._turn + 1) % len(others)
        return [first, *(a for i, a in enumerate(others) if i == self._turn or a in self._lately)]

    def _at(self, grey: U8, angle: float, smallest: int) -> list[FaceBox]:
        back: NDArray[np.float64] | None = None
        if angle:
            height, width = grey.shape
            turn = np.asarray(cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1.0), np.float64)
            cos, sin = abs(turn[0, 0]), abs(turn[0, 1])
            size = int(height * sin + width * cos), int(height * cos + width * sin)
            turn[:, 2] += (size[0] - width) / 2, (size[1] - height) / 2
            back = np.asarray(cv2.invertAffineTransform(turn), np.float64)
            grey = cv2.warpAffine(grey, turn, size, flags=cv2.INTER_LINEAR).astype(np.uint8, copy=False)
        rects, _, weights = self._cascade.detectMultiScale3(
            grey, scaleFactor=1.15, minNeighbors=3, minSize=(smallest, smallest), outputRejectLevels=True
        )
        boxes = []
        for (x, y, w, h), weight in zip(rects, weights, strict=True):
            cx, cy = x + w / 2, y + h / 2
            if back is not None:
                cx, cy = (float(v) for v in back @ (cx, cy, 1.0))
            score = float(weight) * (1.0 if angle else UPRIGHT_BONUS)
            boxes.append(FaceBox(cx - w / 2, cy - h / 2, float(w), float(h), angle, score))
        return boxes
