"""Augmentation of chips."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from edge_quantize.training.augment import CAMERA_EFFECTS, Augment, augment, erase, light

if TYPE_CHECKING:
    from edge.types import U8

STILL = Augment(flip=0, rotate=0, scale=(1, 1), shift=0, p_light=0, p_camera=0, p_erase=0)


@pytest.fixture
def chips() -> U8:
    y, x = np.mgrid[:48, :48]
    waves = 128 + 60 * np.sin(x / 5) + 50 * np.cos(y / 7)
    both: U8 = np.stack([waves, 255 - waves]).astype(np.uint8)
    return both


def test_nothing_to_draw_changes_nothing(chips: U8) -> None:
    assert np.array_equal(augment(chips, STILL, np.random.default_rng(0)), chips)


def test_a_flip_mirrors_exactly(chips: U8) -> None:
    flipped = augment(chips, replace(STILL, flip=1), np.random.default_rng(0))
    assert np.array_equal(flipped, chips[:, :, ::-1])


def test_the_same_seed_gives_the_same_chips_and_leaves_the_input(
    chips: U8,
) -> None:
    spec, before = Augment(p_light=1, p_camera=1, p_erase=1), chips.copy()
    first = augment(chips, spec, np.random.default_rng(5))
    assert np.array_equal(first, augment(chips, spec, np.random.default_rng(5)))
    assert not np.array_equal(first, augment(chips, spec, np.random.default_rng(6)))
    assert np.array_equal(chips, before)
    assert first.dtype == np.uint8
    assert first.shape == chips.shape


def test_zooming_in_on_the_middle_keeps_the_middle() -> None:
    chip = np.full((1, 48, 48), 10, np.uint8)
    chip[0, 16:32, 16:32] = 200
    zoomed = augment(chip, replace(STILL, scale=(2, 2)), np.random.default_rng(0))[0]
    assert (zoomed[10:38, 10:38] == 200).all()
    assert zoomed[2, 2] == 10


def test_what_lies_outside_repeats_the_edge() -> None:
    chip = np.full((1, 48, 48), 90, np.uint8)
    moved = augment(chip, replace(STILL, rotate=20, scale=(0.6, 0.6), shift=0.1), np.random.default_rng(0))
    assert (moved == 90).all()


def test_geometry_only_leaves_the_grey_levels_alone() -> None:
    spec = Augment(p_light=1, p_camera=1, p_erase=1).geometry_only()
    flat = np.full((20, 48, 48), 77, np.uint8)
    assert (augment(flat, spec, np.random.default_rng(0)) == 77).all()


def test_contrast_turns_about_the_mean(chips: U8) -> None:
    lit = light(chips[0], replace(STILL, gamma=(1, 1), contrast=(0.5, 0.5)), np.random.default_rng(0))
    assert abs(float(lit.mean()) - float(chips[0].mean())) < 1
    assert float(lit.std()) == pytest.approx(float(chips[0].std()) / 2, rel=0.02)


def test_gain_darkens_and_side_light_darkens_one_side() -> None:
    grey = np.full((48, 48), 200, np.uint8)
    plain = replace(STILL, gamma=(1, 1), contrast=(1, 1))
    assert (light(grey, replace(plain, gain=(0.3, 0.3)), np.random.default_rng(0)) == 60).all()
    many = [light(grey, replace(plain, side=0.8), np.random.default_rng(seed)) for seed in range(40)]
    lit = [chip for chip in many if (chip != 200).any()]
    assert 5 < len(lit) < 35
    for chip in lit:
        edges = [float(e.mean()) for e in (chip[0], chip[-1], chip[:, 0], chip[:, -1])]
        assert min(edges) < max(edges) - 0.5
        assert chip.max() <= 200


@pytest.mark.parametrize("effect", CAMERA_EFFECTS, ids=lambda e: e.__name__)
def test_each_camera_effect_degrades_a_little(effect: object) -> None:
    y, x = np.mgrid[:48, :48]
    chip = (128 + 60 * np.sin(x / 2) * np.cos(y / 2)).astype(np.uint8)
    assert callable(effect)
    for seed in range(5):
        changed = effect(chip, Augment(), np.random.default_rng(seed))
        assert changed.dtype == np.uint8
        assert changed.shape == chip.shape
        assert 0 < np.abs(changed.astype(int) - chip).mean() < 40


def test_erasing_covers_one_rectangle_of_the_stated_size() -> None:
    chip = np.arange(48 * 48).reshape(48, 48).astype(np.uint8)
    for seed in range(20):
        changed = erase(chip, Augment(erase=(0.1, 0.1)), np.random.default_rng(seed)) != chip
        rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
        box = (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
        assert 0.07 * 48 * 48 < box < 0.13 * 48 * 48
        assert changed.sum() > 0.95 * box
