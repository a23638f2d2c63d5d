"""Haar finds the portraits, upright and leaning, and nothing where nobody is."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from edge.types import FaceBox
from edge.vision.camera.replay import Replay
from edge.vision.detect.haar import Haar
from edge.vision.detect.overlap import one_per_face
from tests.support.pictures import NOBODY, on_canvas, turned

if TYPE_CHECKING:
    from pathlib import Path

    from edge.types import U8

UNMASKED = ("astronaut", "hopper")


@pytest.mark.parametrize("who", UNMASKED)
def test_one_face_is_one_box_on_the_face(portraits: dict[str, U8], who: str) -> None:
    boxes = Haar().detect(on_canvas(portraits[who]), thorough=True)
    assert len(boxes) == 1
    assert boxes[0].angle == 0
    assert math.dist(boxes[0].centre, (160, 160)) < 40
    assert 40 < boxes[0].w < 200


@pytest.mark.parametrize("who", UNMASKED)
@pytest.mark.parametrize("lean", [-35.0, 35.0])
def test_a_leaning_head_is_found_where_it_went(portraits: dict[str, U8], who: str, lean: float) -> None:
    upright = on_canvas(portraits[who])
    (before,) = Haar().detect(upright, thorough=True)
    boxes = Haar().detect(turned(upright, lean), thorough=True)
    assert len(boxes) == 1
    assert boxes[0].angle == lean
    x, y = before.centre[0] - 160, before.centre[1] - 160
    turn = math.radians(lean)
    wanted = 160 + x * math.cos(turn) - y * math.sin(turn), 160 + x * math.sin(turn) + y * math.cos(turn)
    assert math.dist(boxes[0].centre, wanted) < 0.15 * before.w
    assert 0.75 < boxes[0].w / before.w < 1.33


@pytest.mark.parametrize("image", NOBODY.values(), ids=NOBODY)
def test_nobody_is_found_where_nobody_is(image: U8) -> None:
    assert Haar().detect(image, thorough=True) == []


def test_an_8k_frame_is_searched_and_boxes_are_in_its_own_pixels(portraits: dict[str, U8]) -> None:
    image = np.full((4320, 7680, 3), 128, np.uint8)
    image[1000:3000, 4000:6000] = cv2.resize(portraits["astronaut"], (2000, 2000))
    (box,) = Haar().detect(image, thorough=True)
    assert math.dist(box.centre, (5000, 2000)) < 500


def test_forty_faces_are_forty_boxes(portraits: dict[str, U8]) -> None:
    tile = on_canvas(portraits["astronaut"], 120, 120, 120)
    image = np.tile(tile, (5, 8, 1))
    boxes = Haar(rotations=(0.0,), max_side=960).detect(image, thorough=True)
    found = {(int(b.centre[0] // 120), int(b.centre[1] // 120)) for b in boxes}
    assert len(boxes) == len(found) == 40


def test_grey_frames_are_searched(portraits: dict[str, U8]) -> None:
    grey = cv2.cvtColor(on_canvas(portraits["astronaut"]), cv2.COLOR_BGR2GRAY).astype(np.uint8)
    assert len(Haar().detect(grey, thorough=True)) == 1


def test_a_face_below_the_smallest_is_not_looked_for(portraits: dict[str, U8]) -> None:
    image = on_canvas(portraits["astronaut"])
    assert Haar(min_face=300).detect(image, thorough=True) == []
    assert len(Haar(min_face=300).detect(image, thorough=True, zoom=8)) == 1, "the frame is larger"


def test_in_a_stream_every_rotation_comes_in_turn(portraits: dict[str, U8]) -> None:
    leaning = turned(on_canvas(portraits["astronaut"]), 35.0)
    detector = Haar()
    first = [len(detector.detect(leaning)) for _ in range(4)]
    assert first.count(0) <= 1  # at most the frame whose turn was the other lean
    assert first[2:] == [1, 1]  # and once found it is searched in every frame


def test_overlapping_boxes_are_one_face_the_better_one() -> None:
    good, worse, other = FaceBox(0, 0, 100, 100, score=2), FaceBox(20, 20, 60, 60, score=1), FaceBox(200, 0, 90, 90)
    assert one_per_face([worse, good, other]) == [good, other]


def test_both_people_of_the_clip_are_found(data: Path) -> None:
    replay, detector = Replay(data / "clips" / "head-pose-face-detection-female-and-male.gif"), Haar()
    sides: set[bool] = set()
    with_a_face = 0
    while (frame := replay.read(0.0)) is not None:
        boxes = detector.detect(frame.image)
        with_a_face += bool(boxes)
        sides |= {b.centre[0] < frame.image.shape[1] / 2 for b in boxes}
        if len(sides) == 2 and with_a_face > 12:
            break
    replay.close()
    assert sides == {True, False}
    assert with_a_face > 8  # upright alone finds something in 8 of 56 frames


def test_an_empty_still_scene_is_hardly_searched_and_who_comes_is_found_at_once(
    portraits: dict[str, U8], monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = Haar()
    searched: list[float] = []
    at = detector._at

    def counted(grey: U8, angle: float, smallest: int) -> list[FaceBox]:
        searched.append(angle)
        return at(grey, angle, smallest)

    monkeypatch.setattr(detector, "_at", counted)
    image = on_canvas(portraits["astronaut"])
    empty = np.full_like(image, 128)
    assert [detector.detect(empty) for _ in range(30)] == [[]] * 30
    assert len(searched) <= 2 * 30 / 4
    assert len(detector.detect(image)) == 1
    searched.clear()
    assert [len(detector.detect(image)) for _ in range(15)] == [1] * 15, "in every frame while they are there"
