"""Where frames come from. One protocol; one file a kind of camera, imported when it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from edge.types import Frame


class Camera(Protocol):
    """A source of frames, read by one thread."""

    live: bool
    """Window time is the monotonic clock (True) or clip time (False)."""
    ended: bool
    """No frame will come any more."""
    drops: dict[str, int]
    """Frames lost, by cause."""

    def read(self, timeout: float) -> Frame | None:
        """Next frame, or None when none came within `timeout` seconds or the source has ended.

        Raises SourceError when the source cannot be read any more.
        """
        ...

    def close(self) -> None:
        """Let the device go; safe to call twice."""
        ...


def open_camera(kind: str, source: str | Path | None, *, loop: bool, realtime: bool, still_seconds: float) -> Camera:
    """Open a camera by its configured kind. Raises SourceError when it cannot be opened."""
    from edge.errors import SourceError

    if kind == "replay":
        from pathlib import Path

        from edge.camera.replay import Replay

        if source is None:
            msg = "camera.kind = replay needs camera.source: a video, an image or a folder of images"
            raise SourceError(msg)
        return Replay(Path(source), loop=loop, realtime=realtime, still_seconds=still_seconds)
    if kind == "v4l2":
        from edge.camera.v4l2 import V4l2

        return V4l2(str(source or "/dev/video0"))
    msg = f"camera.kind = {kind} is not in this version: use replay or v4l2"
    raise SourceError(msg)
