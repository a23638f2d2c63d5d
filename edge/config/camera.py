"""The `[camera]` table of `config.toml`; `edge.config` reads it."""

from __future__ import annotations

import re
from pathlib import Path  # noqa: TC003 - pydantic reads the annotation
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from edge.config.hosts import host_problem
from edge.config.section import Section

Share = Annotated[float, Field(ge=0, le=1)]
Polygon = Annotated[
    tuple[Annotated[tuple[Share, Share], Field(strict=False)], ...], Field(strict=False, min_length=3, max_length=64)
]
Side = Annotated[int, Field(ge=64, le=8192, multiple_of=2)]

_LIVE: Final = ("picamera2", "v4l2", "rtsp")
_GOES_WITH: Final[dict[str, tuple[str, ...]]] = {
    "loop": ("replay",),
    "realtime": ("replay",),
    "still_seconds": ("replay",),
    "rotation": _LIVE,
    "max_fps": _LIVE,
    "size": ("picamera2", "v4l2"),
    "username": ("rtsp",),
    "password_file": ("rtsp",),
    "unverified_tls": ("rtsp",),
    "exposure_us": ("picamera2",),
    "gain": ("picamera2",),
    "ev": ("picamera2",),
    "flicker_hz": ("picamera2",),
}
"""Keys that only some kinds of camera know."""


class CameraSection(Section):
    """Where frames come from.

    `source` is a file or folder (replay), a device (v4l2, default /dev/video0), a URL (rtsp) or a camera's number
    or id (picamera2, default 0). `realtime` paces a replay by its own times; stills last `still_seconds`.
    `rotation` turns the picture, degrees clockwise; `size` is (width, height) before that; of a live camera at most
    `max_fps` frames a second are looked at. `privacy_masks` are polygons of (x, y) in shares (0-1) of the turned
    picture. `exposure_us` and `gain` fix what is automatic otherwise, `ev` shifts it in stops, `flicker_hz` is the
    mains frequency of lamps whose flicker is to be avoided. `unverified_tls` says that an rtsps:// camera may be
    anyone: what it shows is encrypted, and who shows it is not verified.
    """

    kind: Literal["picamera2", "v4l2", "rtsp", "replay"]
    source: str | None = Field(default=None, min_length=1)
    loop: bool = False
    realtime: bool = False
    still_seconds: float = Field(default=1.0, gt=0, le=3600)
    size: Annotated[tuple[Side, Side], Field(strict=False)] | None = None
    max_fps: float = Field(default=15.0, ge=5, le=120)
    rotation: Literal[0, 90, 180, 270] = 0
    privacy_masks: Annotated[tuple[Polygon, ...], Field(strict=False, max_length=32)] = ()
    username: str | None = Field(default=None, min_length=1)
    password_file: Annotated[Path, Field(strict=False)] | None = None
    unverified_tls: bool = False
    exposure_us: int | None = Field(default=None, ge=1, le=100_000)
    gain: float | None = Field(default=None, ge=1, le=64)
    ev: float = Field(default=0.0, ge=-8, le=8)
    flicker_hz: Literal[50, 60] | None = None

    @model_validator(mode="after")
    def _possible(self) -> Self:
        for key, kinds in _GOES_WITH.items():
            if self.kind not in kinds and getattr(self, key) != type(self).model_fields[key].default:
                msg = f"{key} goes with kind = {' or '.join(kinds)} only"
                raise ValueError(msg)
        if self.kind == "picamera2" and self.source is not None and not re.fullmatch("[0-9]{1,3}", self.source):
            msg = 'kind = "picamera2" takes the camera\'s number as source, e.g. "0"'
            raise ValueError(msg)
        if self.kind == "replay" and not self.source:
            msg = 'kind = "replay" needs source: a video, a picture or a folder of pictures'
            raise ValueError(msg)
        if self.kind == "rtsp":
            self._check_url()
        return self

    def _check_url(self) -> None:
        """Whatever is wrong, the message does not repeat the URL: it may hold a password."""
        wanted = "needs source, e.g. rtsp://192.0.2.10:554/stream1"
        try:
            parts = urlsplit(self.source or "")
            usable = (
                parts.scheme in {"rtsp", "rtsps"} and host_problem(parts.hostname or "") is None and parts.port != 0
            )
        except ValueError:
            usable = False
        if not usable:
            msg = f'kind = "rtsp" {wanted}'
            raise ValueError(msg)
        if (parts.scheme == "rtsps") != self.unverified_tls:
            # FFmpeg 5.1 (OpenCV 4.11) hands no option for TLS on from RTSP; 8 (4.14) verifies issuers, not addresses.
            msg = "rtsps:// does not verify which camera answers, and whoever does gets the password: " + (
                "give the camera a network of its own, then set unverified_tls = true"
                if parts.scheme == "rtsps"
                else "unverified_tls goes with such an address only"
            )
            raise ValueError(msg)
        if not (self.source or "").isprintable() or " " in (self.source or "") or "@" in "".join(parts[2:]):
            msg = "in source, write / ? # @ and spaces of a user, a password or a path as %2F %3F %23 %40 %20"
            raise ValueError(msg)
        if parts.username is not None and self.username is not None:
            msg = "username stands in source too: give it once"
            raise ValueError(msg)
        if self.password_file is not None and self.username is None:
            msg = "password_file needs username"
            raise ValueError(msg)
