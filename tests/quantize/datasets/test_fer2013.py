"""Reading the datasets, splits and soft targets."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import cv2
import numpy as np
import pytest
from edge_quantize.datasets import fer2013 as data

from edge.errors import SourceError

if TYPE_CHECKING:
    from pathlib import Path

    from edge_quantize.datasets.fer2013 import Fer2013

HELD_OUT: Final = ([0, 56, 187, 242], 800, 11406572)
"""First rows, number and sum of the rows that the nets of fer-2026.11 were validated on."""


def test_targets_mix_label_and_votes() -> None:
    labels = np.array([3, 3, 4, 0], np.uint8)
    votes = np.full((4, 10), -1, np.int16)
    votes[1] = 0
    votes[1, [1, 0]] = 8, 2  # eight happiness, two neutral
    votes[2] = 0
    votes[2, 7:] = 3, 3, 4  # contempt, unknown, not a face: none of the seven
    votes[3] = 0
    votes[3, [3, 7]] = 5, 5  # half the votes are contempt, which is dropped
    targets = data.soft_targets(labels, votes, 0.3)
    assert targets.dtype == np.float32
    assert targets.sum(axis=1) == pytest.approx(np.ones(4))
    assert targets[0, 3] == 1  # no votes known
    assert targets[1, [3, 4]] == pytest.approx([0.7 + 0.3 * 0.8, 0.3 * 0.2])
    assert targets[2, 4] == 1
    assert targets[3, [0, 5]] == pytest.approx([0.7, 0.3])


def test_an_absent_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="EDGE_DATA"):
        data.load_fer2013(tmp_path)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    base = tmp_path / "fer2013"
    base.mkdir()
    with pytest.raises(SourceError, match=r"meta\.npz is not there"):
        data.load_fer2013(tmp_path)
    (base / "meta.npz").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(SourceError, match=r"meta\.npz"):
        data.load_fer2013(tmp_path)
    np.savez(base / "meta.npz", labels=np.zeros(3, np.uint8))
    with pytest.raises(SourceError, match="split"):
        data.load_fer2013(tmp_path)


def test_a_mosaic_of_another_width_is_refused(tmp_path: Path) -> None:
    base = tmp_path / "fer2013"
    base.mkdir()
    none = np.zeros(3, bool)
    np.savez(
        base / "meta.npz",
        labels=np.zeros(3, np.uint8),
        split=np.array(["train", "train", "public"]),
        duplicate_of_test=none,
        blank=none,
        ferplus_votes=np.zeros((3, 10), np.int16),
        dup_group=np.arange(3, dtype=np.int32),
    )
    cv2.imwrite(str(base / "tiles-0.webp"), np.zeros((96, 96), np.uint8))
    with pytest.raises(SourceError, match=r"tiles-0\.webp"):
        data.load_fer2013(tmp_path)


def test_photos_are_held_out_whole_and_for_good() -> None:
    photo = np.repeat(np.arange(1000, dtype=np.int32), 3)
    held = data.held_out_photos(photo)
    assert (held.reshape(-1, 3).all(axis=1) == held.reshape(-1, 3).any(axis=1)).all()
    assert 0.15 < held.mean() < 0.25
    assert np.array_equal(data.held_out_photos(photo[:300]), held[:300])


def test_fer2013_is_as_its_page_says(fer2013: Fer2013) -> None:
    assert fer2013.images.shape == (32296, 48, 48)
    assert len(fer2013.public_rows()) == 3589
    assert int(fer2013.usable.sum()) + 934 + 13 >= 28707
    assert fer2013.images[fer2013.train_rows()].std(axis=(1, 2)).min() > 0


def test_the_faces_held_out_are_those_of_the_first_bundle(fer2013: Fer2013) -> None:
    """Weights are handed on from run to run: another draw would validate them on faces they were trained on."""
    held = fer2013.train_val()[1]
    assert (held[:4].tolist(), len(held), int(held.sum())) == HELD_OUT
    narrowed = replace(fer2013, usable=fer2013.usable & (np.arange(len(fer2013.usable)) != held[0]))
    assert np.array_equal(narrowed.train_val()[1], held[1:]), "who may no longer be trained on moves nobody else"
    assert np.array_equal(narrowed.fold(5, 0)[1], np.setdiff1d(fer2013.fold(5, 0)[1], held[:1]))


def test_no_split_leaks(fer2013: Fer2013) -> None:
    train, held = fer2013.train_val()
    assert not np.intersect1d(train, held).size
    assert not fer2013.public[np.concatenate([train, held])].any()
    assert fer2013.usable[np.concatenate([train, held])].all()
    assert not np.intersect1d(fer2013.dup_group[train], fer2013.dup_group[held]).size
    assert 800 <= len(held) < 900
    half_a, half_b = fer2013.public_halves()
    assert np.array_equal(np.union1d(half_a, half_b), fer2013.public_rows())
    assert not np.intersect1d(fer2013.dup_group[half_a], fer2013.dup_group[half_b]).size
    assert abs(len(half_a) - len(half_b)) < 10
    assert np.array_equal(fer2013.public_halves()[0], half_a)
