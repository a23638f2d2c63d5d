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

DEFAULT_FPS: Final = 25.0
"""For containers that state neither times nor a rate."""
GIVE_UP: Final = 250
"""Frames in a row that cannot be decoded end a film."""


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
        count = bad = lost = 0
        while bad < GIVE_UP:
            good, image = capture.read()
            if not good:
                # The end, or a damaged stretch after which an MP4 goes on.
                bad += 1
                if found.frames is not None and count + lost + bad > found.frames:
                    break
                continue
            t = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            if held is not None:
                if t <= held[0]:  # some containers give no times: fall back to the stated rate
                    t = held[0] + step
                if not bad:  # what was lost was not watched
                    step = t - held[0]
                    shortest, longest = min(shortest, step), max(longest, step)
                yield held[0], step, held[1]
            held = t, turned(image.astype(np.uint8, copy=False), degrees)
            count, lost, bad = count + 1, lost + bad, 0
        if held is not None:
            yield held[0], step, held[1]
        stated = found.frames
        if stated is None and not found.whole:
            # Cut off, and nothing says how much is gone: the guess holds where frames come evenly, else at least one.
            even = longest - shortest < 3e-3
            stated = max(count + 1, round(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if even else 0)
        lost = max(0, lost - found.empty)
        if stated is not None:
            gone = stated - found.empty - count
            # A decoder may keep a leading frame or two for itself, so 2 % less in a whole file is no damage.
            lost = max(lost, gone if gone > stated * (0.02 if found.whole else 0.0) else 0)
        if count and lost:
            missing(lost, f"{count} of {stated} stated frames decoded" if stated else f"{count} decoded, {lost} not")
    finally:
        capture.release()
