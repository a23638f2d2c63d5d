"""A film's frames by OpenCV's FFmpeg, upright and with their own times; only what failed to decode is missing."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import cv2
import numpy as np

from edge.errors import SourceError
from edge.vision.camera.container import UNKNOWN, contents
from edge.vision.camera.rotation import TURNS, turned

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from edge.types import U8
    from edge.vision.camera.container import Contents

DEFAULT_FPS: Final = 25.0
"""For containers that state neither times nor a rate."""
GIVE_UP: Final = 250
"""Frames in a row that cannot be decoded end a film."""
EVEN: Final = 3e-3
"""Seconds by which the steps of an even film differ at most, for its times are rounded."""


def film_frames(path: Path, missing: Callable[[int, str], None]) -> Iterator[tuple[float, float, U8]]:
    """(t, duration, uint8 BGR) of each frame, in seconds; `missing` is told how many could not be decoded, and why.

    One frame is held back until its duration is known. Raises SourceError for what is no film.
    """
    with path.open("rb") as file:
        yield from _frames(path, _name(path, file.fileno()), missing)


def _name(path: Path, descriptor: int) -> str:
    """What FFmpeg takes for this file and nothing else: `rtsp:x.mp4` would be a protocol, and OpenCV wants UTF-8."""
    name = os.path.abspath(path)  # noqa: PTH100 - `absolute` keeps `..`, `resolve` follows links
    try:
        name.encode()
    except UnicodeEncodeError:
        return f"/proc/self/fd/{descriptor}"
    return name


def _frames(path: Path, name: str, missing: Callable[[int, str], None]) -> Iterator[tuple[float, float, U8]]:
    capture = cv2.VideoCapture(name, cv2.CAP_FFMPEG)
    try:
        if not capture.isOpened():
            msg = f"{path}: no video OpenCV can open (empty, truncated, or another format)"
            raise SourceError(msg)
        # Releases differ in whether they turn a film by themselves; all say by how much.
        capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
        degrees = int(capture.get(cv2.CAP_PROP_ORIENTATION_META)) % 360
        degrees = degrees if degrees in TURNS else 0
        found = UNKNOWN
        with suppress(OSError, ValueError, IndexError):
            found = contents(path)
        rate = capture.get(cv2.CAP_PROP_FPS)
        step = 1 / rate if 0 < rate < 1000 else 1 / DEFAULT_FPS
        held: tuple[float, U8] | None = None
        shortest, longest = np.inf, 0.0
        count = lost = 0
        for t, image, bad in _decoded(capture, found):
            if held is not None:
                if t <= held[0]:  # some containers give no times: fall back to the stated rate
                    t = held[0] + step  # noqa: PLW2901 - the better value of the same thing
                if not bad:  # what was lost was not watched
                    step = t - held[0]
                    shortest, longest = min(shortest, step), max(longest, step)
                yield held[0], step, held[1]
            held = t, turned(image, degrees)
            count, lost = count + 1, lost + bad
        if held is not None:
            yield held[0], step, held[1]
            # The guess of a container that states no count holds where frames come evenly.
            guess = round(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if longest - shortest < EVEN else 0
            _tell_missing(found, count, lost, guess, missing)
    finally:
        capture.release()


def _decoded(capture: cv2.VideoCapture, found: Contents) -> Iterator[tuple[float, U8, int]]:
    """(t, image, how many could not be decoded before it)."""
    bad = seen = 0
    while bad < GIVE_UP:
        good, image = capture.read()
        seen += 1
        if good:
            yield capture.get(cv2.CAP_PROP_POS_MSEC) / 1000, image.astype(np.uint8, copy=False), bad
            bad = 0
            continue
        # The end, or a damaged stretch after which an MP4 goes on.
        bad += 1
        if found.frames is not None and seen > found.frames:
            return


def _tell_missing(found: Contents, count: int, lost: int, guess: int, missing: Callable[[int, str], None]) -> None:
    stated = found.frames
    if stated is None and not found.whole:
        stated = max(count + 1, guess)  # cut off: at least one is gone
    lost = max(0, lost - found.empty)
    if stated is not None:
        gone = stated - found.empty - count
        # A decoder may keep a leading frame or two for itself, so 2 % less in a whole file is no damage.
        lost = max(lost, gone if gone > stated * (0.02 if found.whole else 0.0) else 0)
    if lost:
        missing(lost, f"{count} of {count + lost if stated is None else stated} stated frames decoded")
