"""Copies, near copies and mirror images are found; faces that are not the same stay apart."""

from __future__ import annotations

import cv2
import numpy as np
from edge_quantize.datasets.near_copies import near_copies


def faces(count: int) -> np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]:
    """Blots, no two alike."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (count, 6, 6)).astype(np.uint8)
    return np.stack([cv2.resize(one, (48, 48), interpolation=cv2.INTER_CUBIC).astype(np.uint8) for one in small])


def test_what_shows_the_same_is_one_group() -> None:
    chips = faces(40)
    saved = cv2.imdecode(cv2.imencode(".jpg", chips[3], [cv2.IMWRITE_JPEG_QUALITY, 60])[1], cv2.IMREAD_GRAYSCALE)
    brighter = np.clip(chips[5] * 0.8 + 30, 0, 255).astype(np.uint8)
    mirrored = np.ascontiguousarray(saved[:, ::-1]).astype(np.uint8)
    group = near_copies(np.concatenate([chips, np.stack([saved.astype(np.uint8), brighter, mirrored])]))
    assert group[:40].tolist() == list(range(40))
    assert group[40:].tolist() == [3, 5, 3]


def test_flat_pictures_are_like_none() -> None:
    flat = np.full((3, 48, 48), 7, np.uint8)
    assert near_copies(flat).tolist() == [0, 1, 2]


def test_every_pair_is_compared_and_progress_ends() -> None:
    chips = faces(1500)  # more than a block of rows
    told: list[tuple[int, int]] = []
    group = near_copies(np.concatenate([chips, chips[1400:]]), lambda *done: told.append(done))
    assert group[1500:].tolist() == list(range(1400, 1500))
    assert told[-1] == (1600, 1600)
