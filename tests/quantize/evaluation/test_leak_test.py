"""The leak test's own instrument: it sees a shape that tells the class, and sees nothing where there is nothing."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from edge_quantize.datasets.fer2013 import load_fer2013
from edge_quantize.evaluation import leak_test as leak
from edge_quantize.masks import synthesis as masks
from edge_quantize.masks.landmarks import POINT

from edge.types import EMOTIONS


def silhouettes(telling: float, n: int = 1400) -> tuple[leak.MasksAlone, np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Masks whose lower edge lies `telling` pixels further down from class to class, and 3 pixels at random."""
    rng = np.random.default_rng(0)
    labels = np.arange(n, dtype=np.int64) % len(EMOTIONS)
    pixels = np.zeros((n, 48, 48, 2), np.uint8)
    for k, label in enumerate(labels):
        bottom = int(np.clip(26 + telling * label + rng.normal(0, 3), 24, 47))
        pixels[k, 22:bottom, 8:40] = (255, rng.integers(60, 200))
    return leak.MasksAlone(pixels, np.arange(n, dtype=np.int64)), labels


@pytest.mark.parametrize(("telling", "low", "high"), [(3.0, 0.35, 1.0), (0.0, 0.0, 0.25)])
def test_the_classifier_finds_a_leak_and_no_other(telling: float, low: float, high: float) -> None:
    alone, labels = silhouettes(telling)
    balanced = float(np.mean(leak.recalls(alone, labels, np.arange(len(labels), dtype=np.int32), seed=1)))
    assert low < balanced < high


def test_a_mask_alone_shows_no_skin(data: object) -> None:
    assert data
    face = load_fer2013().images[0]
    points = np.zeros((len(POINT), 2), np.float32)
    for name, place in {
        "eye_left_outer": (10, 18), "eye_left_inner": (19, 18), "eye_right_inner": (29, 18),
        "eye_right_outer": (38, 18),
        "bridge_0": (24, 17), "bridge_1": (24, 20), "bridge_2": (24, 23), "nose_tip": (24, 29), "subnasale": (24, 32),
        "chin": (24, 45), "jaw_1": (6, 28), "jaw_9": (42, 28),
    }.items():  # fmt: skip
        points[POINT[name]] = place
    params = masks.draw_params(0, face, points, np.random.default_rng(4), masks.Lots())
    for part in ("noise", "blur", "shadow", "strap_cover"):
        params[part] = 0
    one = leak.mask_alone(face, params)
    assert one.shape == (48, 48, 2)
    uncovered = one[..., 0] <= 127
    assert 0.2 < uncovered.mean() < 0.9
    assert (one[uncovered, 1] == 0).all()
    other = leak.mask_alone(np.roll(face, 7), params)
    # Where the edge is soft, skin shines through the rendering itself.
    whole = cv2.erode(one[..., 0], np.ones((5, 5), np.uint8)) == 255
    assert whole.sum() > 100
    assert np.array_equal(one[whole], other[whole])


def test_answers_are_evened_without_losing_what_they_tell() -> None:
    rng = np.random.default_rng(1)
    labels = np.repeat(np.arange(7), 100)
    clear = rng.dirichlet(np.full(7, 5.0), 700).astype(np.float32)
    clear[:, 3] += 0.5  # a net that answers 3 to nearly all
    telling = clear.copy()
    telling[np.arange(700), labels] += 2.0
    assert (clear.argmax(axis=1) == 3).mean() > 0.8
    for probabilities in (clear, telling):
        shares = np.bincount(leak.evened(probabilities), minlength=7) / 700
        assert np.abs(shares - 1 / 7).max() < 0.01
    assert (leak.evened(telling) == labels).mean() > 0.95
