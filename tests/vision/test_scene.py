"""Whether the camera can see: nobody is only said of a scene that is ok."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from edge.vision.camera.replay import Replay
from edge.vision.scene import Watch, look

if TYPE_CHECKING:
    from pathlib import Path

    from edge.types import U8

GRADIENT = np.tile(np.linspace(0, 255, 320).astype(np.uint8), (240, 1))
ROOM = np.where(np.add.outer(np.arange(240) // 40, np.arange(320) // 40) % 2 > 0, GRADIENT, GRADIENT // 2)


@pytest.mark.parametrize(
    ("image", "scene"),
    [
        (ROOM, "ok"),
        (np.dstack([ROOM] * 3), "ok"),
        (ROOM // 3, "ok"),
        (GRADIENT, "covered"),
        (cv2.GaussianBlur(ROOM, (0, 0), 20).astype(np.uint8), "covered"),
        (np.zeros((240, 320), np.uint8), "dark"),
        (ROOM // 16, "dark"),
        (np.full((240, 320, 3), 19, np.uint8), "dark"),
        (np.full((240, 320, 3), 21, np.uint8), "covered"),
        (np.full((240, 320), 255, np.uint8), "covered"),
        (np.random.default_rng(0).integers(90, 110, (480, 640), np.uint8), "covered"),
        (np.full((1, 1), 200, np.uint8), "covered"),
    ],
    ids=[
        "grey",
        "bgr",
        "a third of the light",
        "ramp",
        "smeared",
        "black",
        "dim",
        "19",
        "21",
        "white",
        "sensor noise",
        "one pixel",
    ],
)
def test_scene(image: U8, scene: str) -> None:
    assert look(image) == scene


def test_a_portrait_is_ok(portraits: dict[str, U8]) -> None:
    assert {look(image) for image in portraits.values()} == {"ok"}


def test_every_frame_of_the_real_clips_is_ok_and_a_heavy_blur_of_it_is_not(data: Path) -> None:
    for clip in sorted((data / "clips").glob("*.gif")):
        replay = Replay(clip)
        while (frame := replay.read(0)) is not None:
            assert look(frame.image) == "ok"
            if frame.index % 20 == 0:
                blurred = cv2.GaussianBlur(frame.image, (0, 0), frame.image.shape[1] / 16).astype(np.uint8)
                assert look(blurred) == "covered"


def test_identical_frames_are_frozen_after_ten_seconds_until_one_differs() -> None:
    watch = Watch()
    scenes = [watch.judge(ROOM, t / 2) for t in range(30)]
    assert scenes == ["ok"] * 20 + ["frozen"] * 10
    other = ROOM.copy()
    other[120, 160] += 1
    assert watch.judge(other, 15.0) == "ok"
    assert watch.judge(ROOM, 15.5) == "ok"
    assert watch.judge(ROOM, 25.5) == "frozen"


def test_neither_darkness_nor_a_still_is_ever_frozen() -> None:
    black = np.zeros((240, 320), np.uint8)
    watch = Watch()
    assert [watch.judge(black, t) for t in (0.0, 9.0, 10.0, 3600.0)] == ["dark"] * 4
    assert watch.judge(ROOM, 3601.0) == "ok"
    stills = Watch()
    assert {stills.judge(ROOM, float(t), still=True) for t in range(40)} == {"ok"}


LEFT = [(0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0)]


def test_a_mask_is_black_inside_and_nothing_changes_outside() -> None:
    for shape in ((240, 320), (240, 320, 3), (48, 64)):
        image = np.full(shape, 200, np.uint8)
        Watch([LEFT]).black_out(image)
        assert not image[:, : shape[1] // 2].any()
        assert (image[:, shape[1] // 2 + 1 :] == 200).all()


def test_a_mask_can_be_filled_into_rows_padded_to_a_stride() -> None:
    buffer = np.full((240, 384), 200, np.uint8)
    Watch([LEFT]).black_out(buffer[:, :320])
    assert not buffer[:, :160].any()
    assert (buffer[:, 161:] == 200).all()


def test_the_scene_is_judged_by_what_no_mask_hides() -> None:
    lit_behind_the_counter = ROOM.copy()
    lit_behind_the_counter[:, 160:] = 3
    assert Watch().judge(lit_behind_the_counter, 0.0) == "ok"
    assert Watch([LEFT]).judge(lit_behind_the_counter, 0.0) == "dark"
    dark_behind_the_counter = ROOM.copy()
    dark_behind_the_counter[:, :160] = 3
    assert Watch([LEFT]).judge(dark_behind_the_counter, 0.0) == "ok"
    assert Watch([[(0, 0), (1, 0), (1, 1), (0, 1)]]).judge(ROOM, 0.0) == "covered"
