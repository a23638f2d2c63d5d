"""Replay: a video (GIF, MP4 …), a still, or a folder of stills. Lossless: every frame, in order.

Frames carry the clip's own times, so the same clip gives the same windows however fast it is processed.
"""

from __future__ import annotations

import logging
import re
import time
from typing import TYPE_CHECKING, Final

import cv2
import numpy as np

from edge.errors import SourceError
from edge.process.logs import event
from edge.types import Frame

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from edge.types import U8

log = logging.getLogger(__name__)

STILLS: Final = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".pgm", ".ppm"}
DEFAULT_FPS: Final = 25.0
"""For containers that state neither times nor a rate."""
GIVE_UP: Final = 250
"""Frames in a row that cannot be decoded end a film."""


def read_still(path: Path) -> U8:
    """One picture as uint8 BGR (H, W, 3): grey, alpha and 16-bit pictures are converted, EXIF rotation applied.

    Raises SourceError for a file that is missing, empty, cut off or no picture. Damage inside a JPEG, WebP or
    uncompressed picture cannot be seen: these formats carry no checksum.
    """
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        msg = f"{path}: {error.strerror}: give a picture that can be read"
        raise SourceError(msg) from error
    if not data.size:
        msg = f"{path}: the file is empty (0 bytes): give another picture"
        raise SourceError(msg)
    if not _jpeg_ends(data.tobytes()):
        msg = f"{path}: the picture ends before its end mark (truncated): copy the file again"
        raise SourceError(msg)
    try:
        image: cv2.typing.MatLike | None = cv2.imdecode(data, cv2.IMREAD_COLOR)
    except cv2.error as error:  # e.g. more pixels than OpenCV decodes
        msg = f"{path}: {error.err}: give a smaller picture"
        raise SourceError(msg) from error
    if image is None:
        msg = f"{path}: no picture OpenCV can decode (truncated, damaged, or another format): give another file"
        raise SourceError(msg)
    return image.astype(np.uint8, copy=False)


_SCAN_END: Final = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")
"""A marker inside JPEG scan data that is neither a stuffed byte nor a restart (ITU-T T.81, B.1.1)."""


def _jpeg_ends(data: bytes) -> bool:
    """Tell whether a JPEG has its end-of-image mark; True for another format.

    OpenCV refuses what stops short, but a copy that was interrupted may keep the file's length and hold
    zeros from there on: libjpeg decodes those to grey and only warns. What follows the mark is not looked at.
    """
    if not data.startswith(b"\xff\xd8"):
        return True
    at = 2
    while (marker := data[at : at + 2]) != b"\xff\xd9":
        if len(marker) < 2 or marker[0] != 0xFF:
            return False
        if marker[1] == 0xFF:  # a fill byte
            at += 1
            continue
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
        if marker[1] == 0xDA:  # start of scan
            end = _SCAN_END.search(data, at)
            if end is None:
                return False
            at = end.end() - 2
    return True


def _gif_ends(path: Path) -> bool:
    """Tell whether a GIF has its trailer, which is all that shows a cut; True for another format."""
    with path.open("rb") as file:
        if file.read(3) != b"GIF":
            return True
        file.seek(max(3, path.stat().st_size - 1024))
        return file.read().rstrip(b"\0").endswith(b";")


class Replay:
    """Frames of a file or folder as if a camera had seen them; see `edge.vision.camera.Camera`."""

    live = False

    def __init__(self, source: Path, *, loop: bool = False, realtime: bool = False, still_seconds: float = 1.0) -> None:
        """Check the source. `realtime` paces frames by their own times; `still_seconds` is how long a still lasts.

        Raises SourceError when there is nothing to read.
        """
        self.ended = False
        self.drops: dict[str, int] = {}
        self._source, self._loop, self._still_seconds = source, loop, still_seconds
        self._began = time.monotonic() if realtime else None
        self._index = 0
        if not source.exists():
            msg = f"{source}: no such file or folder: mend camera.source"
            raise SourceError(msg)
        if source.is_dir():
            self._stills = sorted(p for p in source.iterdir() if p.suffix.lower() in STILLS)
            if not self._stills:
                msg = f"{source}: no picture in this folder ({', '.join(sorted(STILLS))})"
                raise SourceError(msg)
        else:
            self._stills = [source] if source.suffix.lower() in STILLS else []
        self._frames = self._all()
        self._next: Frame | None = None
        self._advance()  # a source without one good frame fails here, not later

    @property
    def turns(self) -> tuple[int, ...]:
        """See `edge.vision.camera.Camera.turns`."""
        return (self._index,)

    def read(self, timeout: float) -> Frame | None:
        """Next frame; never lost. Paced replays return None until the frame's time has come."""
        frame = self._next
        if frame is None:
            return None
        if self._began is not None:
            wait = self._began + frame.t - time.monotonic()
            if wait > timeout:
                time.sleep(timeout)
                return None
            time.sleep(max(0.0, wait))
        self._advance()
        return frame

    def close(self) -> None:
        """Release the decoder."""
        self._frames.close()
        self._next, self.ended = None, True

    def _advance(self) -> None:
        self._next = next(self._frames, None)
        self.ended = self._next is None

    def _all(self) -> Generator[Frame, None, None]:
        offset = 0.0
        while True:
            end = offset
            for t, duration, image, still in self._still_run() if self._stills else self._video_run():
                yield Frame(image, offset + t, self._index, duration, still)
                self._index += 1
                end = offset + t + duration
            if end == offset:
                msg = f"{self._source}: not one frame could be decoded: give another file"
                raise SourceError(msg)
            offset = end
            if not self._loop:
                return

    def _drop(self, cause: str, detail: str, frames: int = 1) -> None:
        self.drops[cause] = self.drops.get(cause, 0) + frames
        log.warning(event("frame_dropped", cause=cause, why=detail, next="mend or replace this file"))

    def _still_run(self) -> Iterator[tuple[float, float, U8, bool]]:
        t = 0.0
        for path in self._stills:
            try:
                image = read_still(path)
            except SourceError as error:
                if len(self._stills) == 1:
                    raise
                self._drop("undecodable", str(error))
                continue
            yield t, self._still_seconds, image, True
            t += self._still_seconds

    def _video_run(self) -> Iterator[tuple[float, float, U8, bool]]:
        """(t, duration, image, False) of each frame; one frame is held back until its duration is known."""
        capture = cv2.VideoCapture(str(self._source))
        try:
            if not capture.isOpened():
                msg = f"{self._source}: no video OpenCV can open (empty, truncated, or another format)"
                raise SourceError(msg)
            rate = capture.get(cv2.CAP_PROP_FPS)
            step = 1 / rate if 0 < rate < 1000 else 1 / DEFAULT_FPS
            stated = capture.get(cv2.CAP_PROP_FRAME_COUNT)
            held: tuple[float, U8] | None = None
            count = bad = lost = 0
            while bad < GIVE_UP:
                good, image = capture.read()
                if not good:
                    # The end, or a damaged stretch after which an MP4 goes on.
                    bad += 1
                    if count + lost + bad > stated:
                        break
                    continue
                t = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
                if held is not None:
                    if t <= held[0]:  # some containers give no times: fall back to the stated rate
                        t = held[0] + step
                    step = t - held[0] if not bad else step  # what was lost was not watched
                    yield held[0], step, held[1], False
                held = t, image.astype(np.uint8, copy=False)
                count, lost, bad = count + 1, lost + bad, 0
            if held is not None:
                yield held[0], step, held[1], False
            if count:
                self._note_missing(count, lost, stated)
        finally:
            capture.release()

    def _note_missing(self, count: int, lost: int, stated: float) -> None:
        # Containers round and estimate their count, so 2 % less is no damage.
        missing = max(lost, round(stated) - count if count < stated * 0.98 else 0, not _gif_ends(self._source))
        if missing:
            self._drop("undecodable", f"{self._source}: {count} of {stated:.0f} stated frames decoded", missing)
