"""Replay: a film (MP4, GIF …), an animation, a picture, or a folder of pictures. Lossless: every frame, in order.

Frames carry the clip's own times, so the same clip gives the same windows however fast it is processed.
"""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING, Final

import cv2
import numpy as np

from edge.errors import SourceError
from edge.process.logs import event
from edge.types import Frame
from edge.vision.camera.pictures import kind_of, read_animation, read_pages, read_still

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator
    from pathlib import Path

    from edge.types import U8

log = logging.getLogger(__name__)

DEFAULT_FPS: Final = 25.0
"""For containers that state neither times nor a rate."""
VOTE_FRAMES: Final = 3
VOTE_SECONDS: Final = 0.4
"""What a visitor must be seen for, as `edge.vision.track` asks; a still is spared."""
TOO_SHORT: Final = f"a visitor votes after {VOTE_FRAMES} frames over {VOTE_SECONDS} s: give a longer film, or a picture"
NAMED: Final = 10
"""Ignored files that are named, at most."""
GIVE_UP: Final = 250
"""Frames in a row that cannot be decoded end a film."""


def _gif_ends(path: Path) -> bool:
    """Tell whether a GIF has its trailer, which is all that shows a cut; True for another format."""
    with path.open("rb") as file:
        if file.read(3) != b"GIF":
            return True
        file.seek(max(3, path.stat().st_size - 1024))
        return file.read().rstrip(b"\0").endswith(b";")


_EBML: Final = b"\x1a\x45\xdf\xa3"


def counts_frames(path: Path) -> bool:
    """Tell whether the frame count that OpenCV states for a film can be held against what was decoded.

    MP4 and AVI list their frames. Elsewhere it is duration × rate, which is nothing for a film of varying rate; a
    Matroska that stops short of its stated length has lost the rest, and then the guess is the best there is.
    """
    with path.open("rb") as file:
        head = file.read(4096)
        file.seek(max(0, path.stat().st_size - 4096))
        tail = file.read()
    if head[4:8] in {b"ftyp", b"moov", b"mdat", b"wide"} or (head[:4] == b"RIFF" and head[8:12] == b"AVI "):
        return True
    return head.startswith(_EBML) and (not tail.rstrip(b"\0") or not _segment_fits(head, path.stat().st_size))


def _segment_fits(head: bytes, size: int) -> bool:
    """Whether a Matroska's segment ends within its file (RFC 8794: an id, then a length of 1 to 8 bytes)."""
    at = head.find(b"\x18\x53\x80\x67") + 4
    if at < 4 or at >= len(head) or not head[at]:
        return True
    width = 9 - head[at].bit_length()
    length = int.from_bytes(head[at : at + width]) & ((1 << 7 * width) - 1)
    unknown = length == (1 << 7 * width) - 1
    return unknown or at + width + length <= size


def _pictures(folder: Path) -> list[Path]:
    """The pictures of a folder in the order of their names; what else lies there is named in the log."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    found = [path for path in files if kind_of(path) == "still"]
    passed = [path.name for path in files if path not in found]
    if not found:
        what = f"only {', '.join(passed[:NAMED])}" if passed else "it is empty"
        msg = f"{folder}: no picture in this folder, {what}: give a folder of pictures, or one film"
        raise SourceError(msg)
    if passed:
        more = f" and {len(passed) - NAMED} more" if len(passed) > NAMED else ""
        log.warning(event("files_ignored", folder=folder, files=", ".join(passed[:NAMED]) + more, next="no pictures"))
    return found


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
        self._stills = _pictures(source) if source.is_dir() else []
        self._run = self._folder_run if self._stills else self._file_run(source)
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
        offset, moments = 0.0, False
        while True:
            end = offset
            for t, duration, image, still in self._run():
                moments = moments or not still
                yield Frame(image, offset + t, self._index, duration, still)
                self._index += 1
                end = offset + t + duration
            if end == offset:
                msg = f"{self._source}: not one frame could be decoded: give another file"
                raise SourceError(msg)
            if not self._loop:
                if moments and (self._index < VOTE_FRAMES or end < VOTE_SECONDS):
                    frames = f"{self._index} frames in {end:.2f} s"
                    log.warning(event("no_vote_possible", source=self._source, why=frames, next=TOO_SHORT))
                return
            offset = end

    def _drop(self, cause: str, detail: str, frames: int = 1) -> None:
        self.drops[cause] = self.drops.get(cause, 0) + frames
        log.warning(event("frame_dropped", cause=cause, why=detail, next="mend or replace this file"))

    def _file_run(self, path: Path) -> Callable[[], Iterator[tuple[float, float, U8, bool]]]:
        """What goes through one file, once."""
        kind = kind_of(path)
        if kind == "film":
            return self._video_run
        if kind == "animation":
            return self._animation_run
        return lambda: self._in_turn(read_pages(path) if kind == "pages" else [read_still(path)])

    def _folder_run(self) -> Iterator[tuple[float, float, U8, bool]]:
        return self._in_turn(self._readable())

    def _readable(self) -> Iterator[U8]:
        for path in self._stills:
            try:
                yield read_still(path)
            except SourceError as error:
                if len(self._stills) == 1:
                    raise
                self._drop("undecodable", str(error))

    def _in_turn(self, images: Iterable[U8]) -> Iterator[tuple[float, float, U8, bool]]:
        for k, image in enumerate(images):
            yield k * self._still_seconds, self._still_seconds, image, True

    def _animation_run(self) -> Iterator[tuple[float, float, U8, bool]]:
        t = 0.0
        for image, seconds in read_animation(self._source):
            yield t, seconds, image, False
            t += seconds

    def _video_run(self) -> Iterator[tuple[float, float, U8, bool]]:
        """(t, duration, image, False) of each frame; one frame is held back until its duration is known."""
        # An absolute path, or FFmpeg takes what stands before a colon for a protocol; by number if it is no UTF-8.
        number = os.open(self._source, os.O_RDONLY)
        name = str(self._source.absolute())
        readable = name.encode(errors="surrogateescape").decode(errors="replace") == name
        capture = cv2.VideoCapture(name if readable else f"/proc/self/fd/{number}")
        # As the header says, whatever this release of OpenCV takes for the default.
        capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
        try:
            if not capture.isOpened():
                msg = f"{self._source}: no video OpenCV can open (empty, truncated, or another format)"
                raise SourceError(msg)
            rate = capture.get(cv2.CAP_PROP_FPS)
            step = 1 / rate if 0 < rate < 1000 else 1 / DEFAULT_FPS
            stated = capture.get(cv2.CAP_PROP_FRAME_COUNT)
            exact = counts_frames(self._source)
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
                self._note_missing(count, lost, stated if exact else 0)
        finally:
            capture.release()
            os.close(number)

    def _note_missing(self, count: int, lost: int, stated: float) -> None:
        # Containers round their count, so 2 % less is no damage.
        missing = max(lost, round(stated) - count if count < stated * 0.98 else 0, not _gif_ends(self._source))
        if missing:
            self._drop("undecodable", f"{self._source}: {count} of {stated:.0f} stated frames decoded", missing)
