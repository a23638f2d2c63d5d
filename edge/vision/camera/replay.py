"""Replay: a film, an animation, a still, or a folder of stills, told apart by content. Lossless and in order.

Frames carry the clip's own times, so the same clip gives the same windows however fast it is processed.
"""

from __future__ import annotations

import logging
import stat
import time
from typing import TYPE_CHECKING, Final

from edge.errors import SourceError
from edge.process.logs import event
from edge.types import Frame
from edge.vision.camera.container import looks_like_film
from edge.vision.camera.film import film_frames
from edge.vision.camera.pictures import STILLS, animation_frames, picture_kind, read_pages

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from edge.types import U8

log = logging.getLogger(__name__)

NAMED: Final = 10
"""At most so many ignored files of a folder are named in one line."""


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
        self._moves = False
        self._stills = [source]
        try:
            found = source.stat().st_mode
        except OSError as error:
            gone = isinstance(error, FileNotFoundError | NotADirectoryError)
            why = (
                "no such file or folder: mend camera.source"
                if gone
                else f"{error.strerror}: mend camera.source or its rights"
            )
            msg = f"{source}: {why}"
            raise SourceError(msg) from error
        if stat.S_ISDIR(found):
            self._stills = self._folder()
        elif not stat.S_ISREG(found):
            msg = f"{source}: neither a file nor a folder: a replay needs one; copy it into a file first"
            raise SourceError(msg)
        else:
            kind = picture_kind(source)
            self._moves = kind is not None and kind.moves and kind.format != "GIF"
            if self._moves or _is_film(source):
                self._stills = []
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

    def rested(self, seconds: float) -> None:
        """See `edge.vision.camera.Paced`: its times are those of the clock at the pause."""
        if self._began is not None:
            self._began += seconds

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
            for t, duration, image, still in self._still_run() if self._stills else self._film_run():
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

    def _folder(self) -> list[Path]:
        """The stills of a folder by name; whatever else lies there is named in the log."""
        try:
            inside = sorted(self._source.iterdir())
        except OSError as error:
            msg = f"{self._source}: {error.strerror}: mend camera.source or its rights"
            raise SourceError(msg) from error
        stills = [path for path in inside if _is_still(path)]
        rest = [path.name for path in inside if path not in set(stills)]
        names = ", ".join(rest[:NAMED]) + (f" and {len(rest) - NAMED} more" if len(rest) > NAMED else "")
        if not stills:
            inside_are = f"only {names}" if rest else "it is empty"
            msg = f"{self._source}: no picture in this folder, {inside_are}: name a folder of pictures, or one film"
            raise SourceError(msg)
        if rest:
            log.warning(
                event("folder_ignored", files=names, why="no stills", next="replay a film or an animation by itself")
            )
        return stills

    def _still_run(self) -> Iterator[tuple[float, float, U8, bool]]:
        t = 0.0
        for path in self._stills:
            try:
                for image in read_pages(path):
                    yield t, self._still_seconds, image, True
                    t += self._still_seconds
            except SourceError as error:
                if len(self._stills) == 1 and not t:
                    raise
                self._drop("undecodable", str(error))

    def _film_run(self) -> Iterator[tuple[float, float, U8, bool]]:
        """(t, duration, image, False) of each frame; a film of one frame is a still."""
        frames = self._animation() if self._moves else film_frames(self._source, self._missing)
        first = next(frames, None)
        if first is None:
            return
        second = next(frames, None)
        if second is None and not self.drops:
            yield 0.0, self._still_seconds, first[2], True
            return
        yield *first, False
        if second is not None:
            yield *second, False
        for frame in frames:
            yield *frame, False

    def _animation(self) -> Iterator[tuple[float, float, U8]]:
        for number, frame in enumerate(animation_frames(self._source)):
            if frame is None:
                self._missing(1, f"{number} frames decoded, then it is damaged")
                return
            yield frame

    def _missing(self, frames: int, why: str) -> None:
        self._drop("undecodable", f"{self._source}: {why}", frames)


def _is_film(path: Path) -> bool:
    """Whether a file is to be decoded as a film: by its content, and by its name only where that says nothing."""
    kind = picture_kind(path)
    if kind is not None:
        return kind.moves
    return looks_like_film(path) or path.suffix.lower() not in STILLS - {".gif"}


def _is_still(path: Path) -> bool:
    """Whether a file of a folder is a still, or was meant as one and is damaged. A pipe is not opened."""
    if not path.is_file():
        return False
    named = path.suffix.lower() in STILLS
    try:
        kind = picture_kind(path)
        return not kind.moves if kind is not None else named and not looks_like_film(path)
    except (SourceError, OSError):
        return named
