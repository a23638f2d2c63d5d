"""dlib's frontal face detector: histograms of oriented gradients (Dalal and Triggs 2005), five views, no rotations."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import cv2
import numpy as np

from edge.errors import ConfigError, install
from edge.types import FaceBox
from edge.vision.detect.schedule import Rest
from edge.vision.preprocess import to_grey

if TYPE_CHECKING:
    from edge.types import U8

SMALLEST: Final = 80
"""Side of the detector's own window in pixels."""
MAX_SIDE: Final = 640
"""Size to which a larger frame is shrunk before the search."""


class Hog:
    """See `edge.vision.detect.Detector`; box scores are the distance from the detector's threshold."""

    kind = "hog"

    def __init__(self, *, min_face: int = 36) -> None:
        """Load the detector; `min_face` is the smallest face in frame pixels.

        Raises ConfigError when dlib is not installed.
        """
        try:
            import dlib
        except ImportError as error:
            msg = f'detector.kind: "hog" needs dlib, which is not installed: {install("hog")}'
            raise ConfigError(msg) from error
        self._search = dlib.get_frontal_face_detector().run
        self._min_face = min_face
        self._rest = Rest()

    def forget(self) -> None:
        """See `edge.vision.detect.Detector.forget`."""
        self._rest.forget()

    def detect(self, image: U8, *, thorough: bool = False, zoom: float = 1.0) -> list[FaceBox]:
        """See `edge.vision.detect.Detector.detect`.

        Of a picture that stands still with nobody in it, hardly a frame of a stream is searched.
        """
        height, width = image.shape[:2]
        scale = min(1.0, MAX_SIDE / max(height, width))
        # The window is large: small faces are enlarged to it here, once, not doubled time and again by dlib.
        scale *= max(1.0, SMALLEST / (self._min_face / zoom * scale))
        w, h = math.ceil(width * scale), math.ceil(height * scale)
        if min(w, h) < SMALLEST:
            return []
        if not (thorough or self._rest.wanted(image)):
            return []
        way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        grey: U8 = cv2.resize(to_grey(image), (w, h), interpolation=way).astype(np.uint8, copy=False)
        rects, scores, _ = self._search(grey, 0, 0.0)
        boxes = [FaceBox(r.left() / scale, r.top() / scale, r.width() / scale, r.height() / scale, 0.0, float(score))
                 for r, score in zip(rects, scores, strict=True)]  # fmt: skip
        kept = [b for b in boxes if 0 <= b.centre[0] < width and 0 <= b.centre[1] < height]
        if kept:
            self._rest.found()
        return sorted(kept, key=lambda b: -b.score)
