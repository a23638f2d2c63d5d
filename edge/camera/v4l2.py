"""A USB camera (Video4Linux) through OpenCV: a capture thread and the one-slot mailbox."""

from __future__ import annotations

import threading
import time

import cv2
import numpy as np

from edge.camera.mailbox import Mailbox
from edge.errors import SourceError
from edge.types import Frame


class V4l2:
    """Newest frame of a /dev/video device; see `edge.camera.Camera`."""

    live = True

    def __init__(self, device: str, bell: threading.Event | None = None) -> None:
        """Open the device, e.g. /dev/video0. Raises SourceError when it cannot be opened."""
        self.ended = False
        self.drops: dict[str, int] = {}
        self._device = device
        self._capture = cv2.VideoCapture(device, cv2.CAP_V4L2)
        if not self._capture.isOpened():
            msg = f"camera {device} cannot be opened: is it plugged in, free, and is this user in group video?"
            raise SourceError(msg)
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        self._mailbox: Mailbox[Frame] = Mailbox(bell=bell)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._pump, name="v4l2", daemon=True)
        self._thread.start()

    def _pump(self) -> None:
        index = 0
        while not self._closing.is_set():
            good, image = self._capture.read()
            if not good:
                break
            self._mailbox.put(Frame(image.astype(np.uint8, copy=False), time.monotonic(), index))
            index += 1
        self._capture.release()

    def read(self, timeout: float) -> Frame | None:
        """Newest frame. Raises SourceError once the device has stopped giving any."""
        frame = self._mailbox.take(timeout)
        self.drops["overwritten"] = self._mailbox.overwritten
        if frame is None and not self._thread.is_alive() and not self._closing.is_set():
            self.ended = True
            msg = f"camera {self._device} stopped giving frames: unplugged?"
            raise SourceError(msg)
        return frame

    def close(self) -> None:
        """Stop the thread, which releases the device."""
        self._closing.set()
        self._thread.join(timeout=2.0)
        self.ended = True
