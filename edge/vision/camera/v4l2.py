"""A USB camera (Video4Linux) through OpenCV."""

from __future__ import annotations

import cv2


def open_device(device: str, size: tuple[int, int] | None = None) -> cv2.VideoCapture:
    """A capture of a /dev/video… device, of the `size` nearest to (width, height); opened or not.

    A frame that does not come within OpenCV's own 10 s counts as a lost camera.
    """
    capture = cv2.VideoCapture(device, cv2.CAP_V4L2)
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
    if size is not None:
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, size[0])
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, size[1])
    return capture
