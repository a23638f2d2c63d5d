"""Several cameras as one: live ones in turn as they have a frame, replays in the order of their frames' times."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edge.errors import SourceError
from edge.vision.camera import Paced
from edge.vision.camera.reconnecting import Reconnecting

if TYPE_CHECKING:
    import threading
    from collections.abc import Sequence

    from edge.types import Frame
    from edge.vision.camera import Camera


class MultiCamera:
    """See `edge.vision.camera.Camera`; each frame says which camera it is from."""

    def __init__(self, cameras: Sequence[Camera], bell: threading.Event) -> None:
        """`bell` is set by each live camera that has a new frame."""
        self.live = cameras[0].live
        self._cameras, self._bell = list(cameras), bell
        self._turn = 0
        self._heads: dict[int, Frame] = {}
        self._fail_without_any()

    @property
    def ended(self) -> bool:
        """Whether all have ended."""
        return not self._heads and all(camera.ended for camera in self._cameras)

    @property
    def drops(self) -> dict[str, int]:
        """Frames lost, by cause, of all cameras."""
        total: dict[str, int] = {}
        for camera in self._cameras:
            total |= {cause: total.get(cause, 0) + n for cause, n in camera.drops.items()}
        return total

    @property
    def turns(self) -> tuple[int, ...]:
        """See `edge.vision.camera.Camera.turns`."""
        return tuple(n for camera in self._cameras for n in camera.turns)

    def read(self, timeout: float) -> Frame | None:
        """See `edge.vision.camera.Camera.read`. Raises SourceError when no camera is left."""
        if not self.live:
            return self._earliest(timeout)
        self._bell.clear()  # before looking: a frame that comes meanwhile rings again
        frame = self._next()
        if frame is None and self._bell.wait(timeout):
            frame = self._next()
        self._fail_without_any()
        return frame

    def _fail_without_any(self) -> None:
        troubles = [camera.trouble if isinstance(camera, Reconnecting) else None for camera in self._cameras]
        if all(troubles):
            self.close()
            raise SourceError("; ".join(map(str, troubles)))

    def _next(self) -> Frame | None:
        """A frame that waits, of the camera whose turn is nearest."""
        n = len(self._cameras)
        for number in ((self._turn + k) % n for k in range(n)):
            frame = self._cameras[number].read(0)
            if frame is not None:
                self._turn = (number + 1) % n
                return replace(frame, camera=number)
        return None

    def _earliest(self, timeout: float) -> Frame | None:
        for number, camera in enumerate(self._cameras):
            if number not in self._heads and not camera.ended:
                head = camera.read(timeout)
                if head is not None:
                    self._heads[number] = replace(head, camera=number)
                elif not camera.ended:
                    return None  # a paced replay: its next frame may be the earliest
        if not self._heads:
            return None
        return self._heads.pop(min(self._heads, key=lambda number: (self._heads[number].t, number)))

    def rested(self, seconds: float) -> None:
        """See `edge.vision.camera.Paced`; live ones are closed in a pause."""
        for camera in self._cameras:
            if isinstance(camera, Paced):
                camera.rested(seconds)

    def close(self) -> None:
        """Close all; a frame that waits is released."""
        for camera in self._cameras:
            camera.close()
        self._heads.clear()
