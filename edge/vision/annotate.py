"""Pictures of what the pipeline sees: boxes, route, answer and probabilities. Development mode only."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import cv2
import numpy as np

from edge.errors import SourceError
from edge.types import EMOTIONS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from edge.types import U8, Frame, Track

COLOURS: Final = {"unmasked": (80, 200, 80), "masked": (230, 160, 40)}
WIDTH: Final = 960
"""Frames are drawn at least this wide, so that the writing can be read."""
TILES: Final = 12
"""Frames on a PNG of a longer clip: those with the most faces, in order."""


def draw(frame: Frame, tracks: Sequence[Track]) -> U8:
    """The frame, enlarged, with its tracks drawn on: uint8 BGR."""
    image = frame.image if frame.image.ndim == 3 else cv2.cvtColor(frame.image, cv2.COLOR_GRAY2BGR)
    zoom = max(1.0, min(WIDTH / image.shape[1], 4 * WIDTH / image.shape[0]))
    canvas = cv2.resize(image, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_CUBIC).astype(np.uint8)
    for track in tracks:
        _draw_track(canvas, track, zoom)
    _text(canvas, f"t = {frame.t:.2f} s   faces: {len(tracks)}", 10, 24, (255, 255, 255))
    return canvas


def _draw_track(canvas: U8, track: Track, zoom: float) -> None:
    box, colour = track.box, COLOURS[track.route]
    centre = box.centre[0] * zoom, box.centre[1] * zoom
    corners = cv2.boxPoints((centre, (box.w * zoom, box.h * zoom), box.angle))
    cv2.polylines(canvas, [corners.astype(np.int32)], isClosed=True, color=colour, thickness=2, lineType=cv2.LINE_AA)
    right, top = int(corners[:, 0].max()) + 8, int(corners[:, 1].min())
    right = min(right, canvas.shape[1] - 240)
    top = min(max(14, top), max(14, canvas.shape[0] - 150))
    _text(canvas, f"{track.route}: {track.cell} {float(track.probabilities.max()):.2f}", right, top, colour)
    for row, (name, p) in enumerate(zip(EMOTIONS, track.probabilities, strict=True)):
        y = top + 18 + 17 * row
        cv2.rectangle(canvas, (right + 72, y - 9), (right + 72 + int(100 * float(p)), y + 1), colour, -1)
        _text(canvas, name, right, y, (255, 255, 255), 0.42)


def _text(canvas: U8, text: str, x: int, y: int, colour: tuple[int, int, int], size: float = 0.55) -> None:
    for ink, weight in (((0, 0, 0), 3), (colour, 1)):
        cv2.putText(canvas, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, size, ink, weight, cv2.LINE_AA)


class Annotation:
    """Writes drawn frames to OUT.mp4, or the frames with the most faces to OUT.png."""

    def __init__(self, out: Path) -> None:
        """Raises SourceError for another ending or a folder that does not exist."""
        if out.suffix.lower() not in {".mp4", ".png"}:
            msg = f"{out}: --annotate writes .mp4 or .png"
            raise SourceError(msg)
        if not os.path.isdir(out.parent):  # noqa: PTH112 - False too where a folder on the way may not be entered
            msg = f"{out.parent}: no such folder, or not for this user: create it first"
            raise SourceError(msg)
        self._out = out
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        self._best: list[tuple[int, int, U8]] = []

    def add(self, frame: Frame, tracks: Sequence[Track]) -> None:
        """Take one frame."""
        if self._out.suffix.lower() == ".mp4":
            self._film(frame, draw(frame, tracks))
            return
        worst = min((n for n, _, _ in self._best), default=-1)
        if len(self._best) < TILES or len(tracks) > worst:
            self._best.append((len(tracks), frame.index, draw(frame, tracks)))
            if len(self._best) > TILES:
                self._best.remove(min(self._best, key=lambda b: (b[0], b[1])))

    def _film(self, frame: Frame, canvas: U8) -> None:
        if self._writer is None:
            self._size = canvas.shape[1], canvas.shape[0]
            rate = 1 / frame.duration if frame.duration > 0 else 15.0
            self._writer = cv2.VideoWriter(str(self._out), cv2.VideoWriter.fourcc(*"mp4v"), rate, self._size)
            if not self._writer.isOpened():
                msg = f"{self._out}: cannot be written: check the folder and the room on the disk"
                raise SourceError(msg)
        if (canvas.shape[1], canvas.shape[0]) != self._size:  # stills of a folder may differ in size
            canvas = cv2.resize(canvas, self._size).astype(np.uint8)
        self._writer.write(canvas)

    def close(self) -> None:
        """Finish the file. Raises SourceError when it cannot be written."""
        if self._writer is not None:
            self._writer.release()
        if self._best:
            tiles = [canvas for _, _, canvas in sorted(self._best, key=lambda b: b[1])]
            if not cv2.imwrite(str(self._out), _sheet(tiles)):
                msg = f"{self._out}: cannot be written: check the folder and the room on the disk"
                raise SourceError(msg)


def _sheet(tiles: Sequence[U8]) -> U8:
    if len(tiles) == 1:
        return tiles[0]
    across = 2 if len(tiles) <= 4 else 3
    h, w = tiles[0].shape[:2]
    sheet = np.zeros((-(-len(tiles) // across) * h, across * w, 3), np.uint8)
    for i, tile in enumerate(tiles):
        y, x = divmod(i, across)
        sheet[y * h : (y + 1) * h, x * w : (x + 1) * w] = cv2.resize(tile, (w, h))
    return sheet
