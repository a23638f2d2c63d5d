"""A camera that OpenCV reads: a capture thread, the one-slot mailbox, and a way back whenever the camera is lost."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Final

import cv2
import numpy as np

from edge.errors import SourceError
from edge.process.logs import event
from edge.types import Frame
from edge.vision.camera.cadence import Cadence
from edge.vision.camera.mailbox import Mailbox
from edge.vision.camera.repeats import NEXT, Repeats
from edge.vision.camera.rotation import turned

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge.types import U8

log = logging.getLogger(__name__)

FIRST_RETRY: Final = 1.0
LAST_RETRY: Final = 30.0
"""Seconds between tries to reopen: doubling from the first to the last."""
STOP: Final = 2.0


class Stream:
    """Newest frame of what `open_capture` opens; see `edge.vision.camera.Camera`.

    A camera that gives no frame any more, or one picture for ever, is let go and opened again, with growing pauses,
    for as long as it takes: a restart would not plug it in. Meanwhile `read` gives None, and coverage falls.
    """

    live = True

    def __init__(
        self,
        name: str,
        open_capture: Callable[[], cv2.VideoCapture],
        *,
        max_fps: float,
        rotation: int = 0,
        bell: threading.Event | None = None,
        hint: str = "",
    ) -> None:
        """Open the camera; `name` is what logs call it, and frames beyond `max_fps` a second are not decoded.

        Raises SourceError, ending in `hint`, when it cannot be opened.
        """
        self.ended = False
        self._lost = self._turns = 0
        self._name, self._open, self._rotation = name, open_capture, rotation
        self._cadence = Cadence(max_fps)
        self._repeats = Repeats()
        self._gone = self._froze = False
        self._mailbox: Mailbox[Frame] = Mailbox(bell=bell)
        self._closing = threading.Event()
        capture = open_capture()
        if not capture.isOpened():
            msg = f"camera {name} cannot be opened: {hint}"
            raise SourceError(msg)
        self._thread = threading.Thread(target=self._pump, args=(capture,), name=f"camera {name}", daemon=True)
        self._thread.start()

    @property
    def drops(self) -> dict[str, int]:
        """Frames overwritten before they were read, and how often the camera was lost."""
        return {"overwritten": self._mailbox.overwritten} | ({"camera_lost": self._lost} if self._lost else {})

    @property
    def turns(self) -> tuple[int, ...]:
        """See `edge.vision.camera.Camera.turns`."""
        return (self._turns,)

    def read(self, timeout: float) -> Frame | None:
        """Newest frame; None while there is none."""
        return self._mailbox.take(timeout)

    def close(self) -> None:
        """Stop the thread, which lets the device go."""
        self._closing.set()
        self._thread.join(STOP)
        if self._thread.is_alive():  # in the driver; what comes of it is not looked at
            log.warning(
                event("camera_stuck", name=self._name, seconds=STOP, next="it is let go when its driver answers")
            )
        self._mailbox.clear()
        self.ended = True

    def _pump(self, capture: cv2.VideoCapture) -> None:
        index, pause = 0, FIRST_RETRY
        while not self._closing.is_set():
            comes = _comes(capture)
            self._turns += 1
            now = time.monotonic()
            if self._closing.is_set():
                break
            if comes and not self._cadence.takes(now):
                continue
            image = _decoded(capture) if comes else None
            stuck = image is not None and self._repeats.stuck(image, now)
            if image is not None and not stuck:
                if self._gone:
                    log.info(event("camera_back", name=self._name))
                pause, self._gone = FIRST_RETRY, False
                self._mailbox.put(Frame(turned(image, self._rotation), now, index))
                index += 1
                continue
            capture.release()
            self._say(stuck=stuck)
            self._closing.wait(pause)
            pause = min(2 * pause, LAST_RETRY)
            if not self._closing.is_set():
                capture = self._open()
        capture.release()

    def _say(self, *, stuck: bool) -> None:
        """Say once that a camera is gone, and once in its life that it froze.

        Where all its pictures are alike, whoever comes ends the freeze: a line each time, or a count among the drops,
        would tell of that.
        """
        if stuck:
            if not self._froze:
                log.error(event("camera_frozen", name=self._name, next=NEXT))
            self._froze = True
        elif not self._gone:
            self._repeats = Repeats()  # what comes next is a camera that is back, whatever it shows
            self._gone = True
            self._lost += 1
            log.error(event("camera_lost", name=self._name, next="check cable and power; it is reopened"))


def _comes(capture: cv2.VideoCapture) -> bool:
    """Wait for the next picture and take it from the camera, not decoded yet.

    What OpenCV raises on a garbled one must not end the thread: nobody would open the camera again.
    """
    try:
        return capture.grab()
    except cv2.error:
        return False


def _decoded(capture: cv2.VideoCapture) -> U8 | None:
    """The picture that came, uint8 (H, W, 3) BGR; None where it cannot be decoded."""
    try:
        good, image = capture.retrieve()
    except cv2.error:
        return None
    return image.astype(np.uint8, copy=False) if good and image.size else None
