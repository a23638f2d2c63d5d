"""Where frames come from. One protocol; one file a kind of camera, imported when it is used."""

from __future__ import annotations

import logging
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

from edge.process.logs import event

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge.config.camera import CameraSection
    from edge.types import Frame

log = logging.getLogger(__name__)

UNVERIFIED: Final = "let no other machine into the camera's network; give this device a user of its own there"
"""What to do about a camera whose certificate nobody verifies."""


class Camera(Protocol):
    """A source of frames, read by one thread."""

    live: bool
    """Window time is the monotonic clock (True) or clip time (False)."""

    @property
    def ended(self) -> bool:
        """No frame will come any more."""
        ...

    @property
    def drops(self) -> dict[str, int]:
        """Frames lost, by cause."""
        ...

    @property
    def turns(self) -> tuple[int, ...]:
        """Frames and failed tries so far, one count a camera: a count that stands still is a driver that hangs."""
        ...

    def read(self, timeout: float) -> Frame | None:
        """Next frame, or None when none came within `timeout` seconds or the source has ended.

        Raises SourceError when the source cannot be read any more.
        """
        ...

    def close(self) -> None:
        """Let the device go; safe to call twice."""
        ...


@runtime_checkable
class Paced(Protocol):
    """A source that rests in a pause instead of being closed."""

    def rested(self, seconds: float) -> None:
        """Go on where it was when a pause of so many seconds began."""
        ...


def open_cameras(sections: Sequence[CameraSection]) -> Camera:
    """Open the configured cameras as one.

    Raises SourceError when none can be opened. One of several live ones is waited for instead, so that it does not
    blind the others.
    """
    if len(sections) == 1:
        return open_camera(sections[0])
    from edge.vision.camera.multi import MultiCamera
    from edge.vision.camera.reconnecting import Reconnecting

    bell = threading.Event()
    openers = [partial(open_camera, section, bell) for section in sections]
    if sections[0].kind == "replay":
        return MultiCamera([opened() for opened in openers], bell)
    return MultiCamera(
        [Reconnecting(camera_name(section), opened) for section, opened in zip(sections, openers, strict=True)], bell
    )


def camera_name(section: CameraSection) -> str:
    """What logs call a camera; nothing secret."""
    if section.kind == "rtsp":
        from edge.vision.camera.rtsp import address

        return address(section.source or "")
    if section.kind == "picamera2":
        return f"picamera2 {section.source or 0}"
    return section.source or "/dev/video0"


def open_camera(section: CameraSection, bell: threading.Event | None = None) -> Camera:
    """Open one camera. `bell` is set whenever it has a new frame.

    Raises SourceError when it cannot be opened, ConfigError when its password cannot be read.
    """
    if section.kind == "replay":
        from edge.vision.camera.replay import Replay

        return Replay(
            Path(section.source or ""),
            loop=section.loop,
            realtime=section.realtime,
            still_seconds=section.still_seconds,
        )
    if section.kind == "picamera2":
        from edge.vision.camera.picamera2 import Picamera

        return Picamera(section, bell)
    from edge.vision.camera.stream import Stream

    if section.kind == "v4l2":
        from edge.vision.camera.v4l2 import open_device

        capture = partial(open_device, camera_name(section), section.size)
        hint = "is it plugged in, free, and is this user in group video?"
    else:
        from edge.vision.camera.rtsp import open_url, with_credentials

        url = section.source or ""
        if section.unverified_tls:
            log.warning(event("camera_unverified", name=camera_name(section), next=UNVERIFIED))
        capture = partial(open_url, with_credentials(url, section.username, section.password_file))
        hint = "is it on, are path, user and password right, and may this service reach it (docs/operate.md)?"
    return Stream(
        camera_name(section), capture, max_fps=section.max_fps, rotation=section.rotation, bell=bell, hint=hint
    )
