"""Whether the camera can see: nobody is only said of a scene that is ok."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from edge.scene import look

if TYPE_CHECKING:
    from edge.types import U8

GRADIENT = np.tile(np.linspace(0, 255, 320).astype(np.uint8), (240, 1))


@pytest.mark.parametrize(
    ("image", "scene"),
    [
        (GRADIENT, "ok"),
        (np.dstack([GRADIENT] * 3), "ok"),
        (np.zeros((240, 320), np.uint8), "dark"),
        (GRADIENT // 16, "dark"),
        (np.full((240, 320, 3), 19, np.uint8), "dark"),
        (np.full((240, 320, 3), 21, np.uint8), "covered"),
        (np.full((240, 320), 255, np.uint8), "covered"),
        (np.random.default_rng(0).integers(90, 110, (480, 640), np.uint8), "covered"),
        (np.full((1, 1), 200, np.uint8), "covered"),
    ],
    ids=["grey", "bgr", "black", "dim", "19", "21", "white", "sensor noise", "one pixel"],
)
def test_scene(image: U8, scene: str) -> None:
    assert look(image) == scene


def test_a_portrait_is_ok(portraits: dict[str, U8]) -> None:
    assert {look(image) for image in portraits.values()} == {"ok"}
