"""Augmentation of chips, in PyTorch."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from edge_quantize.training.augment import Augment

torch = pytest.importorskip("torch", reason="PyTorch is not installed: make torch")

from edge_quantize.training import device_augment  # noqa: E402 - after the skip

if TYPE_CHECKING:
    from edge.types import U8

STILL = Augment(flip=0, rotate=0, scale=(1, 1), shift=0, p_light=0, p_camera=0, p_erase=0)


def augment(chips: U8, spec: Augment, seed: int = 0) -> U8:
    """Augmented chips as grey levels again."""
    torch.manual_seed(seed)
    grey: U8 = (device_augment.augment(torch.from_numpy(chips), spec)[:, 0].numpy() * 128 + 128).astype(np.uint8)
    return grey


@pytest.fixture
def chips() -> U8:
    y, x = np.mgrid[:48, :48]
    waves = 128 + 60 * np.sin(x / 5) + 50 * np.cos(y / 7)
    both: U8 = np.stack([waves, 255 - waves]).astype(np.uint8)
    return both


def test_nothing_to_draw_changes_nothing(chips: U8) -> None:
    assert np.array_equal(augment(chips, STILL), chips)


def test_a_flip_mirrors_exactly(chips: U8) -> None:
    flipped = augment(chips, replace(STILL, flip=1))
    assert np.array_equal(flipped, chips[:, :, ::-1])


def test_the_same_seed_gives_the_same_chips_and_leaves_the_input(
    chips: U8,
) -> None:
    spec, before = Augment(p_light=1, p_camera=1, p_erase=1), chips.copy()
    first = augment(chips, spec, 5)
    assert np.array_equal(first, augment(chips, spec, 5))
    assert not np.array_equal(first, augment(chips, spec, 6))
    assert np.array_equal(chips, before)
    assert first.dtype == np.uint8
    assert first.shape == chips.shape


def test_zooming_in_on_the_middle_keeps_the_middle() -> None:
    chip = np.full((1, 48, 48), 10, np.uint8)
    chip[0, 16:32, 16:32] = 200
    zoomed = augment(chip, replace(STILL, scale=(2, 2)))[0]
    assert (zoomed[10:38, 10:38] == 200).all()
    assert zoomed[2, 2] == 10


def test_what_lies_outside_repeats_the_edge() -> None:
    chip = np.full((1, 48, 48), 90, np.uint8)
    moved = augment(chip, replace(STILL, rotate=20, scale=(0.6, 0.6), shift=0.1))
    assert (moved == 90).all()


def test_geometry_only_leaves_the_grey_levels_alone() -> None:
    spec = Augment(p_light=1, p_camera=1, p_erase=1).geometry_only()
    flat = np.full((20, 48, 48), 77, np.uint8)
    assert (augment(flat, spec) == 77).all()


def light(chip: U8, spec: Augment, seed: int = 0) -> U8:
    """One relit chip, rounded."""
    torch.manual_seed(seed)
    x = torch.from_numpy(chip)[None, None].float()
    lit: U8 = device_augment.light(x, spec)[0, 0].round().numpy().astype(np.uint8)
    return lit


def test_contrast_turns_about_the_mean(chips: U8) -> None:
    lit = light(chips[0], replace(STILL, gamma=(1, 1), contrast=(0.5, 0.5)))
    assert abs(float(lit.mean()) - float(chips[0].mean())) < 1
    assert float(lit.std()) == pytest.approx(float(chips[0].std()) / 2, rel=0.02)


def test_gain_darkens_and_side_light_darkens_one_side() -> None:
    grey = np.full((48, 48), 200, np.uint8)
    plain = replace(STILL, gamma=(1, 1), contrast=(1, 1))
    assert (light(grey, replace(plain, gain=(0.3, 0.3))) == 60).all()
    many = [light(grey, replace(plain, side=0.8), seed) for seed in range(40)]
    lit = [chip for chip in many if (chip != 200).any()]
    assert 5 < len(lit) < 35
    for chip in lit:
        edges = [float(e.mean()) for e in (chip[0], chip[-1], chip[:, 0], chip[:, -1])]
        assert min(edges) < max(edges) - 0.5
        assert chip.max() <= 200


@pytest.mark.parametrize("effect", device_augment.CAMERA_EFFECTS, ids=lambda e: e.__name__)
def test_each_camera_effect_degrades_a_little(effect: object) -> None:
    y, x = np.mgrid[:48, :48]
    chip = torch.from_numpy(128 + 60 * np.sin(x / 2) * np.cos(y / 2)).float().expand(5, 1, 48, 48)
    assert callable(effect)
    torch.manual_seed(0)
    changed = effect(chip, Augment())
    assert changed.shape == chip.shape
    for one in (changed - chip).abs().mean(dim=(1, 2, 3)):
        assert 0 < float(one) < 40


def test_camera_effects_fall_on_the_share_asked_for(chips: U8) -> None:
    many = np.repeat(chips[:1], 400, axis=0)
    changed = (augment(many, replace(STILL, p_camera=0.25)) != many).any(axis=(1, 2))
    assert 60 < changed.sum() < 140


def test_erasing_covers_one_rectangle_of_the_stated_size() -> None:
    chip = np.arange(48 * 48).reshape(48, 48).astype(np.uint8)
    x = torch.from_numpy(chip)[None, None].float()
    for seed in range(20):
        torch.manual_seed(seed)
        changed = (device_augment.erase(x, Augment(erase=(0.1, 0.1))) != x)[0, 0].numpy()
        rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
        box = (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
        assert 0.07 * 48 * 48 < box < 0.13 * 48 * 48
        assert changed.sum() > 0.95 * box


def test_geometry_is_that_of_opencv(chips: U8) -> None:
    matrix = np.array([[0.8, 0, 0.2 * 23.5], [0, 0.8, 0.2 * 23.5]])
    wanted = cv2.warpAffine(chips[0], matrix, (48, 48), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    for spec, truth in (
        (replace(STILL, flip=1), chips[0][:, ::-1]),
        (replace(STILL, scale=(0.8, 0.8)), wanted),
    ):
        got = augment(chips[:1], spec)[0].astype(int)
        assert np.abs(got - truth)[2:-2, 2:-2].max() <= 3


def test_all_at_once_stays_in_range() -> None:
    torch.manual_seed(0)
    chips = torch.randint(0, 256, (64, 48, 48), dtype=torch.uint8)
    out = device_augment.augment(chips, Augment(p_light=1, p_camera=1, p_erase=1))
    assert out.shape == (64, 1, 48, 48)
    assert float(out.min()) >= -1
    assert float(out.max()) <= 127 / 128
    assert torch.equal(out * 128, (out * 128).round())
