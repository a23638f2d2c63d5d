"""dlib's HOG detector where dlib is installed, and what is said where it is not."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from edge.detect.hog import Hog
from edge.errors import BackendError

if TYPE_CHECKING:
    from edge.types import U8


def test_without_dlib_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dlib", None)
    with pytest.raises(BackendError, match=r"edge-fer\[hog\]"):
        Hog()


def test_a_face_is_found_near_and_far_and_nobody_in_the_dark(portraits: dict[str, U8]) -> None:
    pytest.importorskip("dlib", reason="dlib is not installed: pip install 'edge-fer[hog]'")
    for side in (130, 300):
        image = np.full((360, 480, 3), 128, np.uint8)
        image[20 : 20 + side, 40 : 40 + side] = cv2.resize(portraits["astronaut"], (side, side))
        (box,) = Hog().detect(image)
        assert math.dist(box.centre, (40 + side / 2, 20 + side / 2)) < 0.2 * side
        assert 0.2 * side < box.w < 0.6 * side
    assert Hog().detect(np.zeros((360, 480), np.uint8)) == []
    assert Hog().detect(np.zeros((1, 1, 3), np.uint8)) == []
