"""Pictures for people who would rather look than read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from edge.errors import SourceError
from edge.types import FaceBox, Frame, Track
from edge.vision.annotate import Annotation, draw

if TYPE_CHECKING:
    from pathlib import Path

PROBABILITIES = np.array([0.05, 0.05, 0.05, 0.7, 0.05, 0.05, 0.05], np.float32)


def track(angle: float = 0.0) -> Track:
    return Track(1, FaceBox(20, 20, 40, 40, angle), "masked", "happy", PROBABILITIES, 3)


def frame(index: int = 0, shape: tuple[int, ...] = (90, 160, 3)) -> Frame:
    return Frame(np.full(shape, 128, np.uint8), index / 10, index, 0.1)


@pytest.mark.parametrize("shape", [(90, 160, 3), (90, 160), (1, 1), (1080, 1920, 3)])
def test_a_frame_of_any_kind_is_drawn_at_least_960_wide(shape: tuple[int, ...]) -> None:
    canvas = draw(frame(shape=shape), [track(), track(30.0)])
    assert (canvas.ndim, canvas.dtype.name) == (3, "uint8")
    assert canvas.shape[1] == max(960, shape[1])


def test_a_thin_picture_does_not_fill_the_memory() -> None:
    assert draw(frame(shape=(4000, 2)), []).size < 100_000_000


def test_a_track_is_drawn() -> None:
    assert not np.array_equal(draw(frame(), [track()]), draw(frame(), []))


def test_a_film_has_every_frame(tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    annotation = Annotation(out)
    for i in range(5):
        annotation.add(frame(i), [track()])
    annotation.close()
    capture = cv2.VideoCapture(str(out))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 5
    capture.release()


def test_a_sheet_is_written(tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    annotation = Annotation(out)
    for i in range(20):
        annotation.add(frame(i), [track()] if i > 10 else [])
    annotation.close()
    sheet = cv2.imread(str(out))
    assert sheet is not None
    assert sheet.shape[:2] == (4 * 540, 3 * 960)


@pytest.mark.parametrize(("name", "says"), [("out.txt", "mp4 or .png"), ("gone/out.png", "no such folder")])
def test_another_ending_or_folder_is_refused(tmp_path: Path, name: str, says: str) -> None:
    with pytest.raises(SourceError, match=says):
        Annotation(tmp_path / name)
