"""Contact sheets of an evaluation: corrupted faces, and faces in scenes with what the detector made of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import cv2
import numpy as np

from edge.vision.preprocess import CHIP, chip
from edge_quantize.evaluation import in_scene
from edge_quantize.evaluation.corruptions import CORRUPTIONS, corrupt

if TYPE_CHECKING:
    from edge.types import U8, CropSpec
    from edge.vision.detect import Detector

_FACE: Final = 72
_MARGIN: Final = 104
_FOUND, _MISSED, _SET = (80, 220, 80), (60, 60, 255), (255, 255, 255)
_COLUMNS, _ROWS = 5, 6
_STEP: Final = 7
"""Every so many-th face is drawn, so that a sheet shows more than one clip."""


def _strip(title: str, faces: U8) -> U8:
    """One line of faces (N, 48, 48), enlarged pixel for pixel, behind its title."""
    head = np.full((_FACE, _MARGIN), 255, np.uint8)
    cv2.putText(head, title, (6, _FACE // 2 + 4), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0,), 1, cv2.LINE_AA)
    large = [cv2.resize(face, (_FACE, _FACE), interpolation=cv2.INTER_NEAREST) for face in faces]
    return np.hstack([head, *large]).astype(np.uint8)


def corruptions(chips: U8) -> U8:
    """Grey sheet of chips u8 (N, 48, 48): as they are, and a line for each corruption."""
    return np.vstack([_strip("clean", chips), *(_strip(name, corrupt(name, chips)) for name in CORRUPTIONS)])


def scenes(faces: U8, rooms: list[U8], detector: Detector, crop: CropSpec) -> U8:
    """BGR sheet of scenes as PublicTest-in-scene makes them from faces u8 (M, 48, 48).

    White is where a face was set, green the box matched with it and, in the corner, the chip cut from it; red crosses
    a face that was not found.
    """
    tiles: list[U8] = []
    for k, (frame, x, y, side) in enumerate(in_scene.place(faces, rooms)):
        if k % _STEP:
            continue
        box = in_scene.match(detector.detect(frame, thorough=True), x, y, side)
        drawn = frame.copy()
        cv2.rectangle(drawn, (x, y), (x + side, y + side), _SET, 1)
        if box is None:
            cv2.line(drawn, (x, y), (x + side, y + side), _MISSED, 2)
            cv2.line(drawn, (x + side, y), (x, y + side), _MISSED, 2)
        else:
            turned = cv2.boxPoints((box.centre, (box.w, box.h), box.angle)).astype(np.int32)
            cv2.polylines(drawn, [turned], isClosed=True, color=_FOUND, thickness=2)
            left = drawn.shape[1] - 2 * CHIP if x + side / 2 < drawn.shape[1] / 2 else 0
            large = cv2.resize(chip(frame, box, crop), (2 * CHIP, 2 * CHIP), interpolation=cv2.INTER_NEAREST)
            drawn[: 2 * CHIP, left : left + 2 * CHIP] = large[..., None]
        tiles.append(cv2.resize(drawn, (320, 180), interpolation=cv2.INTER_AREA).astype(np.uint8))
        if len(tiles) == _COLUMNS * _ROWS:
            break
    blank = np.full((180, 320, 3), 255, np.uint8)
    tiles += [blank] * (-len(tiles) % _COLUMNS)
    return np.vstack([np.hstack(tiles[k : k + _COLUMNS]) for k in range(0, len(tiles), _COLUMNS)])
