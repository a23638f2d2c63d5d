"""Real photographs for the gate: chips cut by the device's own crop from photos with and without a mask.

The two classes were collected in different ways, so the size of the face in the crop could give the class away. The
crop's scale and centre are therefore drawn alike for both, several times a photo.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np

from edge.errors import SourceError, install
from edge.types import CropSpec, FaceBox
from edge.vision.preprocess import chip
from edge_quantize.datasets.fer2013 import RealCrops

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edge.types import U8

DRAWS: Final = 6
"""Crops cut from each photo."""
SCALE: Final = (1.0, 1.6)
"""Side of the crop in widths of BlazeFace's box."""
_SHIFT: Final = 0.08
_PAD: Final = 0.5


def largest_face(detector: Any, image: U8) -> FaceBox | None:  # noqa: ANN401 - mediapipe has no types
    """Box of the largest face in a BGR photo, in its pixels; tight photos are searched again with a grey surround."""
    height, width = image.shape[:2]
    for pad in (0.0, _PAD):
        dx, dy = round(pad * width), round(pad * height)
        shown = cv2.copyMakeBorder(image, dy, dy, dx, dx, cv2.BORDER_CONSTANT, value=(128, 128, 128)) if pad else image
        answer = detector.process(cv2.cvtColor(shown, cv2.COLOR_BGR2RGB))
        boxes = [d.location_data.relative_bounding_box for d in answer.detections or []]
        if boxes:
            box = max(boxes, key=lambda b: float(b.width * b.height))
            wide, high = shown.shape[1], shown.shape[0]
            return FaceBox(x=box.xmin * wide - dx, y=box.ymin * high - dy, w=box.width * wide, h=box.height * high)
    return None


def _open_blazeface() -> Any:  # noqa: ANN401
    os.environ.setdefault("GLOG_minloglevel", "2")
    try:
        from mediapipe.python.solutions import face_detection
    except ImportError as error:
        msg = f"cutting real faces needs mediapipe, which does not import ({error}): {install('host')}"
        raise SourceError(msg) from error
    return face_detection.FaceDetection(model_selection=0, min_detection_confidence=0.3)


def cut_chips(
    folder: Path, seed: int = 20261121, progress: Callable[[int, int], None] = lambda _done, _total: None
) -> RealCrops:
    """Cut chips from `folder`/masked/*.jpg and `folder`/unmasked/*.jpg.

    Raises:
        SourceError: a folder is empty or a photo cannot be read.

    """
    photos = [(path, label) for label, name in enumerate(("unmasked", "masked"))
              for path in sorted((folder / name).glob("*.jpg"))]  # fmt: skip
    if len({label for _, label in photos}) != 2:
        msg = f"{folder}: expected masked/*.jpg and unmasked/*.jpg"
        raise SourceError(msg)
    detector = _open_blazeface()
    images, labels, numbers, scales = [], [], [], []
    for number, (path, label) in enumerate(photos):
        # OpenCV's types do not say that it gives None for what it cannot read.
        image: Any = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            msg = f"{path}: not a readable picture"
            raise SourceError(msg)
        box = largest_face(detector, image.astype(np.uint8, copy=False))
        rng = np.random.default_rng([seed, number])
        for _ in range(DRAWS if box is not None else 0):
            assert box is not None  # noqa: S101 - for the type checker
            scale = float(rng.uniform(*SCALE))
            dx, dy = rng.normal(0, _SHIFT, 2) * box.w
            moved = FaceBox(box.x + dx, box.y + dy, box.w, box.h)
            try:
                images.append(chip(image.astype(np.uint8, copy=False), moved, CropSpec(scale, -0.05)))
            except ValueError:
                continue
            labels.append(label)
            numbers.append(number)
            scales.append(scale)
        progress(number + 1, len(photos))
    return RealCrops(np.stack(images), np.array(labels, np.uint8), np.array(numbers, np.int32),
                     np.array(scales, np.float32))  # fmt: skip
