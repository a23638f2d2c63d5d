"""`gray48/1`, by golden values: whoever computes something else trains and serves two different things."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from edge.inference.tflite import to_int8
from edge.types import CropSpec, FaceBox
from edge.vision.preprocess import CHIP, chip, shrink, square, to_grey, to_input

if TYPE_CHECKING:
    from edge.types import U8

RAMP: U8 = (np.arange(8, dtype=np.uint8)[:, None] * 10 + np.arange(8, dtype=np.uint8)[None]).astype(np.uint8)
"""8×8, value = 10 × row + column."""


def test_every_grey_level_becomes_the_level_less_128() -> None:
    levels = np.arange(256, dtype=np.uint8)
    chips = np.zeros((256, CHIP, CHIP), np.uint8) + levels[:, None, None]
    got = to_int8(chips)
    assert (got.shape, got.dtype.name) == ((256, CHIP, CHIP, 1), "int8")
    assert np.array_equal(got[:, 5, 7, 0].astype(np.int16), levels.astype(np.int16) - 128)
    assert np.array_equal(to_input(chips)[:, 0, 0, 0] * 128, got[:, 0, 0, 0].astype(np.float32))


def test_a_box_inside_is_cut_as_it_is() -> None:
    assert np.array_equal(square(RAMP, FaceBox(2, 1, 4, 4), CropSpec()), RAMP[1:5, 2:6])


@pytest.mark.parametrize(
    ("box", "corner", "wanted"),
    [
        (FaceBox(-2, -2, 4, 4), "top left", [[0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 1], [10, 10, 10, 11]]),
        (FaceBox(6, 6, 4, 4), "bottom right", [[66, 67, 67, 67], [76, 77, 77, 77], [76, 77, 77, 77], [76, 77, 77, 77]]),
    ],
)
def test_outside_the_frame_the_edge_is_replicated(box: FaceBox, corner: str, wanted: list[list[int]]) -> None:
    assert square(RAMP, box, CropSpec()).tolist() == wanted, corner


@pytest.mark.parametrize(("dy", "first_row"), [(0.0, 2), (0.25, 3), (-0.25, 1)])
def test_dy_moves_the_square_by_shares_of_the_height(dy: float, first_row: int) -> None:
    assert np.array_equal(square(RAMP, FaceBox(2, 2, 4, 4), CropSpec(dy=dy)), RAMP[first_row : first_row + 4, 2:6])


def test_scale_is_of_the_width() -> None:
    assert square(RAMP, FaceBox(2, 2, 4, 2), CropSpec(scale=1.5)).shape == (6, 6)


@pytest.mark.parametrize("angle", [35.0, -35.0, 90.0])
def test_a_leaning_head_is_levelled(angle: float) -> None:
    """A bar drawn from ear to ear of a head that leans lies level in its chip."""
    image = np.zeros((200, 200), np.uint8)
    turn = np.deg2rad(angle)
    along, down = np.array([np.cos(turn), np.sin(turn)]), np.array([-np.sin(turn), np.cos(turn)])
    eyes = np.array([100.0, 100.0]) - 20 * down  # above the centre of this head
    a, b = (tuple(round(float(v)) for v in eyes + sign * 20 * along) for sign in (-1, 1))
    cv2.line(image, a, b, (255,), 3)
    rows, columns = np.nonzero(chip(image, FaceBox(50, 50, 100, 100, angle), CropSpec()) > 100)
    assert np.ptp(rows) <= 3
    assert np.ptp(columns) >= 15
    assert abs(rows.mean() - 14.4) < 1.5


def test_dy_of_a_leaning_head_goes_along_its_own_axis() -> None:
    image = np.zeros((200, 200), np.uint8)
    image[95:106, 65:76] = 255  # a head that leans 90° clockwise has its chin on the left
    cut = square(image, FaceBox(80, 80, 40, 40, 90.0), CropSpec(dy=0.75))
    rows, columns = np.nonzero(cut > 128)
    assert abs(rows.mean() - 19.5) < 1.5
    assert abs(columns.mean() - 19.5) < 1.5


@pytest.mark.parametrize(("side", "method"), [(120, cv2.INTER_AREA), (49, cv2.INTER_AREA), (24, cv2.INTER_CUBIC)])
def test_shrinks_by_area_and_enlarges_by_cubic(side: int, method: int) -> None:
    image = np.random.default_rng(side).integers(0, 256, (side, side), np.uint8)
    wanted = cv2.resize(image, (CHIP, CHIP), interpolation=method)
    other = cv2.resize(image, (CHIP, CHIP), interpolation=cv2.INTER_LINEAR)
    got = chip(image, FaceBox(0, 0, side, side), CropSpec())
    assert np.array_equal(got, wanted)
    assert not np.array_equal(got, other)


def test_area_of_two_by_two_is_their_mean() -> None:
    image = np.tile(np.array([[0, 100], [100, 200]], np.uint8), (CHIP, CHIP))
    assert (chip(image, FaceBox(0, 0, 96, 96), CropSpec()) == 100).all()


def test_a_chip_of_the_right_size_is_untouched() -> None:
    image = np.random.default_rng(0).integers(0, 256, (CHIP, CHIP), np.uint8)
    assert np.array_equal(chip(image, FaceBox(0, 0, CHIP, CHIP), CropSpec()), image)


def test_grey_of_bgr_by_the_usual_weights() -> None:
    image = np.zeros((1, 3, 3), np.uint8)
    image[0, 0, 0] = image[0, 1, 1] = image[0, 2, 2] = 255
    assert to_grey(image).tolist() == [[29, 150, 76]]


def test_a_square_that_misses_the_frame_is_an_error() -> None:
    with pytest.raises(ValueError, match="outside the 8x8 frame"):
        square(RAMP, FaceBox(20, 20, 4, 4), CropSpec())


def test_a_one_pixel_frame_gives_a_chip() -> None:
    assert (chip(np.full((1, 1, 3), 9, np.uint8), FaceBox(0, 0, 1, 1), CropSpec()) == 9).all()


@pytest.mark.parametrize(
    ("size", "small"), [((480, 360), (64, 48)), ((1280, 720), (128, 72)), ((309, 309), (128, 128)), ((7, 9), (7, 9))]
)
@pytest.mark.parametrize("channels", [(), (3,)], ids=["grey", "colour"])
def test_a_shrunken_picture_is_the_mean_of_what_it_shows(
    size: tuple[int, int], small: tuple[int, int], channels: tuple[int, ...]
) -> None:
    noise = np.random.default_rng(5).normal(128, 30, (size[1], size[0], *channels))
    image = np.clip(cv2.GaussianBlur(noise, (0, 0), 4) * 8 - 896, 0, 255).astype(np.uint8)
    got = shrink(image, *small)
    assert got.shape == (small[1], small[0], *channels)
    assert got.dtype == np.uint8
    wanted = cv2.resize(image, small, interpolation=cv2.INTER_AREA).astype(np.int16)
    assert np.abs(got - wanted).mean() < wanted.std() / 3
    assert abs(float(got.mean()) - float(image.mean())) < 1
