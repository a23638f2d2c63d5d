"""Where frames come from. One protocol; one file a kind of camera, imported when it is used."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from edge.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge.config import CameraSection
    from edge.types import Frame


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

    def read(self, timeout: float) -> Frame | None:
        """Next frame, or None when none came within `timeout` seconds or the source has ended.

        Raises SourceError when the source cannot be read any more.
        """
        ...

    def close(self) -> None:
        """Let the device go; safe to call twice."""
        ...


def open_cameras(sections: Sequence[CameraSection]) -> Camera:
    """Open the configured cameras as one. Raises SourceError when one cannot be opened."""
    if len(sections) == 1:
        return open_camera(sections[0])
    from edge.camera.several import Several

    bell = threading.Event()
    return Several([open_camera(section, bell) for section in sections], bell)


def open_camera(section: CameraSection, bell: threading.Event | None = None) -> Camera:
    """Open one camera; `bell` is set whenever it has a new frame. Raises SourceError when it cannot be opened."""
    if section.kind == "replay" and section.source is not None:
        from edge.camera.replay import Replay

        return Replay(
            Path(section.source), loop=section.loop, realtime=section.realtime, still_seconds=section.still_seconds
        )
    if section.kind == "v4l2":
        from edge.camera.v4l2 import V4l2

        return V4l2(section.source or "/dev/video0", bell)
    msg = f"camera.kind = {section.kind} is not in this version: use replay or v4l2"
    raise SourceError(msg)
