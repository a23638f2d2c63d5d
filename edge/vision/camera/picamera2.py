"""A Raspberry Pi camera through picamera2: the pixels are looked at in the camera's own buffers.

Both streams are YUV420, whose first plane is the grey picture: faces are looked for in `lores`, chips are cut from
`main` of the same request. Written for picamera2 0.3.x, from its manual and its source.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

from edge.errors import SourceError
from edge.process.logs import event
from edge.types import Frame
from edge.vision.camera import camera_name
from edge.vision.camera.cadence import Cadence
from edge.vision.camera.mailbox import Mailbox
from edge.vision.camera.repeats import NEXT, Repeats
from edge.vision.camera.rotation import turned

if TYPE_CHECKING:
    from edge.config.camera import CameraSection
    from edge.types import U8

log = logging.getLogger(__name__)

SIZE: Final = (1280, 720)
LORES_WIDTH: Final = 640
"""Faces are looked for in a picture of at most this width."""
BUFFERS: Final = 6
"""Two may be held here, the others keep the sensor and its image processor busy."""
HUNG: Final = 5.0
"""Seconds without a frame after which the camera is taken to hang."""
STEADY: Final = 300.0
"""Seconds of frames after which a camera that hung is trusted again. To open it in place costs nothing, a restart ends
a window early, for which the day's privacy budget pays."""
CLOSING: Final = 2.0
"""Seconds a camera may take to close; one that hangs may never."""
LONGEST_US: Final = 100_000
"""Longest frame duration in µs: 10 frames a second in the dark."""


class Picamera:
    """Newest completed request of a camera; see `edge.vision.camera.Camera`. Each frame must be released.

    At most two requests are held: the one the pipeline looks at and the newest one in the mailbox. A camera that
    hangs is opened once more; when it hangs again soon `read` raises, so that the service ends and systemd restarts it.
    One that sends a single picture for ever is opened again each time: in the dark it may be right.
    """

    live = True

    def __init__(self, section: CameraSection, bell: threading.Event | None = None) -> None:
        """Open, configure and start. Raises SourceError saying what the camera does not like."""
        self.ended = False
        self._section, self._name = section, camera_name(section)
        self._cadence = Cadence(section.max_fps)
        self._index = 0
        self._hung, self._reopened = 0, -math.inf
        self._repeats, self._froze = Repeats(), False
        self._mailbox: Mailbox[tuple[Any, float, int]] = Mailbox(lambda item: item[0].release(), bell)
        self._camera = self._start()
        self._last = time.monotonic()

    @property
    def drops(self) -> dict[str, int]:
        """Frames overwritten before they were read, and how often the camera hung."""
        return {"overwritten": self._mailbox.overwritten} | ({"camera_lost": self._hung} if self._hung else {})

    @property
    def turns(self) -> tuple[int, ...]:
        """See `edge.vision.camera.Camera.turns`."""
        return (self._index,)

    def read(self, timeout: float) -> Frame | None:
        """Newest frame. Raises SourceError when the camera hangs again soon, or does not open or close any more."""
        item = self._mailbox.take(timeout)
        now = time.monotonic()
        if item is not None:
            self._last = now
            frame = self._frame(*item)
            if not self._repeats.stuck(frame.image, now):
                return frame
            if frame.release is not None:
                frame.release()
            if not self._froze:  # once: in the dark it ends when somebody comes
                log.error(event("camera_frozen", name=self._name, next=NEXT))
            self._froze = True
            self._reopen("sends one picture for ever")
        elif now - self._last > HUNG:
            self._hangs(now)
        return None

    def close(self) -> None:
        """Stop and let the camera go; a request that waits is released."""
        if self.ended:
            return
        self.ended = True
        if not self._shut():
            log.error(event("camera_stuck", name=self._name, next="the kernel ends it with the process"))

    def _start(self) -> Any:  # noqa: ANN401 - picamera2 ships no types
        try:
            from libcamera import Transform
            from picamera2 import Picamera2
        except ImportError as error:
            msg = (
                f"camera {self._name}: {error.name} is not installed: apt install python3-picamera2, "
                "and make the virtual environment with --system-site-packages"
            )
            raise SourceError(msg) from error
        camera = None
        try:
            camera = Picamera2(int(self._section.source or 0))
            upside_down = self._section.rotation == 180
            width, height = self._section.size or SIZE
            shrink = max(1.0, width / LORES_WIDTH)
            small = int(width / shrink) & ~1, int(height / shrink) & ~1
            # The preview's colour space is full-range (sYCC): a grey level means the same as in a training picture.
            configuration = camera.create_preview_configuration(
                main={"size": (width, height), "format": "YUV420"},
                lores={"size": small, "format": "YUV420"},
                raw=None,
                transform=Transform(hflip=upside_down, vflip=upside_down),
                buffer_count=BUFFERS,
                controls=self._controls(),
                display=None,
                encode=None,
                queue=False,  # picamera2 keeps no request back for a caller to come
            )
            camera.configure(configuration)
            camera.post_callback = self._arrived
            camera.start()
        except (RuntimeError, ValueError, TypeError, OSError, IndexError) as error:
            if camera is not None:
                camera.close()
            cause = f"{error.__cause__ or error}"
            msg = f"camera {self._name} cannot be opened ({cause}): connected, free, and able to do what [camera] asks?"
            raise SourceError(msg) from error
        return camera

    def _controls(self) -> dict[str, object]:
        section = self._section
        shortest = min(round(1_000_000 / section.max_fps), LONGEST_US)
        controls: dict[str, object] = {"FrameDurationLimits": (shortest, LONGEST_US)}
        if section.exposure_us is not None:
            controls["ExposureTime"] = section.exposure_us
        if section.gain is not None:
            controls["AnalogueGain"] = float(section.gain)
        if section.ev:
            controls["ExposureValue"] = float(section.ev)
        if section.flicker_hz is not None:
            # Lamps flicker at twice the mains frequency. 1: by the period given, in µs.
            controls |= {"AeFlickerMode": 1, "AeFlickerPeriod": 500_000 // section.flicker_hz}
        return controls

    def _arrived(self, request: Any) -> None:  # noqa: ANN401
        """Keep a completed request. Runs in the camera's loop, under its lock: nothing heavy here."""
        now = time.monotonic()
        if self.ended or not self._cadence.takes(now):
            return
        self._mailbox.clear()  # the old one goes before the new one is held
        request.acquire()
        self._mailbox.put((request, now, self._index))
        self._index += 1  # of those that are overwritten too: the pace is read off it

    def _frame(self, request: Any, t: float, index: int) -> Frame:  # noqa: ANN401
        from picamera2 import MappedArray

        with ExitStack() as held:
            held.callback(request.release)
            views: dict[str, U8] = {}
            for stream in ("main", "lores"):
                width, height = request.config[stream]["size"]
                # Rows are padded to the stride; below the grey plane lie the two of colour.
                plane = held.enter_context(MappedArray(request, stream)).array[:height, :width]
                views[stream] = turned(plane, self._section.rotation % 180 and self._section.rotation)
            release = held.pop_all().close
        return Frame(views["main"], t, index, lores=views["lores"], release=release)

    def _hangs(self, now: float) -> None:
        if now - self._reopened < STEADY:
            msg = f"camera {self._name} hangs again: look at its cable and power"
            raise SourceError(msg)
        log.error(event("camera_hung", name=self._name, seconds=HUNG, next="opened once more"))
        self._hung, self._reopened = self._hung + 1, now
        self._reopen("hangs")

    def _reopen(self, trouble: str) -> None:
        if not self._shut():
            msg = f"camera {self._name} {trouble} and cannot be closed: look at its cable and power"
            raise SourceError(msg)
        self._camera = self._start()
        self._last = time.monotonic()

    def _shut(self) -> bool:
        """Close the camera; False when it did not within `CLOSING`."""
        closer = threading.Thread(target=self._camera.close, name="camera close", daemon=True)
        closer.start()
        closer.join(CLOSING)
        self._mailbox.clear()
        return not closer.is_alive()
