"""A camera that has stuck is told from a scene in which nothing moves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from edge.vision.camera.repeats import LONGEST, STUCK, Repeats

if TYPE_CHECKING:
    from edge.types import U8

NOISE = np.random.default_rng(7)
ROOM = NOISE.integers(0, 256, (120, 160, 3), np.uint8)


def fed(repeats: Repeats, images: list[U8], fps: float = 4.0, since: float = 1000.0) -> list[float]:
    """When it was found stuck, in seconds from the first picture."""
    return [k / fps for k, image in enumerate(images) if repeats.stuck(image, since + k / fps)]


def test_the_same_bytes_for_a_minute_are_a_stuck_camera_and_then_for_twice_as_long() -> None:
    repeats = Repeats()
    found = fed(repeats, [ROOM.copy() for _ in range(4 * 2600)])
    assert found[0] == STUCK
    # From the first picture after each reopening on; at last as seldom as it gets.
    assert np.diff(found) == pytest.approx([2 * STUCK, 4 * STUCK, 8 * STUCK, LONGEST, LONGEST], abs=2)
    assert len(found) == 6


@pytest.mark.parametrize("pixel", [(0, 0, 0), (61, 80, 1), (119, 159, 2)])
def test_a_still_scene_is_not_one_as_long_as_one_level_of_one_pixel_differs(pixel: tuple[int, int, int]) -> None:
    images = [ROOM.copy() for _ in range(4 * 600)]
    for k, image in enumerate(images):
        image[pixel] = k // 4 % 2  # of pictures a second apart
    assert fed(Repeats(), images) == []


def test_another_picture_begins_it_anew() -> None:
    repeats = Repeats()
    assert fed(repeats, [ROOM] * 400) == [STUCK]
    assert fed(repeats, [np.flip(ROOM)] * 236, since=2000.0) == []
    assert fed(repeats, [ROOM] * 400, since=3000.0) == [STUCK]


def test_a_view_of_rows_that_are_padded_is_read_without_the_padding() -> None:
    buffer = NOISE.integers(0, 256, (120, 192), np.uint8)
    views = []
    for _ in range(4 * 70):
        buffer = buffer.copy()
        buffer[:, 160:] = NOISE.integers(0, 256, (120, 32), np.uint8)
        views.append(buffer[:, :160])
    assert fed(Repeats(), views) == [STUCK]
