"""One of several live cameras: while it cannot be opened or used, it is tried again and the others go on."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from typing import TYPE_CHECKING

from edge.errors import EdgeError, SourceError
from edge.process.logs import event
from edge.vision.camera.stream import FIRST_RETRY, LAST_RETRY, STOP

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge.types import Frame
    from edge.vision.camera import Camera

log = logging.getLogger(__name__)


class Reconnecting:
    """What `opened` gives, opened anew whenever it fails; see `edge.vision.camera.Camera`. Logs call it `name`."""

    live = True

    def __init__(self, name: str, opened: Callable[[], Camera]) -> None:
        self.trouble: EdgeError | None = None
        """Why there is no camera now."""
        self._name, self._opened = name, opened
        self._camera: Camera | None = None
        self._turns = 0
        self._drops: Counter[str] = Counter()
        self._closing = threading.Event()
        self._opener: threading.Thread | None = None
        try:
            self._camera = opened()
        except SourceError as error:
            self._wait_for_it(error)

    @property
    def ended(self) -> bool:
        """Whether it was closed."""
        return self._closing.is_set()

    @property
    def drops(self) -> dict[str, int]:
        """Frames lost, by cause, and how often the camera was."""
        return dict(self._drops + Counter(self._camera.drops if self._camera else {}))

    @property
    def turns(self) -> tuple[int, ...]:
        """See `edge.vision.camera.Camera.turns`: a try to open counts as one, so one that hangs is seen."""
        return (self._turns + sum(self._camera.turns if self._camera else ()),)

    def read(self, timeout: float) -> Frame | None:
        """Newest frame; None while there is none."""
        camera = self._camera
        if camera is None:
            return None
        try:
            return camera.read(timeout)
        except SourceError as error:
            self._turns, self._drops = self.turns[0] + 1, Counter(self.drops)
            self._camera = None
            camera.close()
            self._wait_for_it(error)
            return None

    def close(self) -> None:
        """Let the device go, or the search for it."""
        self._closing.set()
        if self._opener is not None:
            self._opener.join(STOP)
        if self._camera is not None:
            self._camera.close()

    def _wait_for_it(self, error: SourceError) -> None:
        log.error(event("camera_absent", name=self._name, why=error, next="tried again; the other cameras go on"))
        self.trouble = error
        self._drops["camera_lost"] += 1
        self._opener = threading.Thread(target=self._search, name=f"camera {self._name}", daemon=True)
        self._opener.start()

    def _search(self) -> None:
        pause = FIRST_RETRY
        while not self._closing.wait(pause):
            pause = min(2 * pause, LAST_RETRY)
            self._turns += 1
            try:
                camera = self._opened()
            except EdgeError as error:
                self.trouble = error
                continue
            self._camera, self.trouble = camera, None
            if self._closing.is_set():
                camera.close()
            log.info(event("camera_back", name=self._name))
            return
