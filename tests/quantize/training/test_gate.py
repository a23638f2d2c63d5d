"""The gate's own training: what it is shown, which faces come again, where its answer changes."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from edge_quantize.datasets.fer2013 import Fer2013, held_out_photos, validation_photos
from edge_quantize.datasets.not_bare import NOT_BARE
from edge_quantize.training import nets, samples
from edge_quantize.training.labelled import Labelled, Samples
from edge_quantize.training.recipe import RECIPES, Recipe, load_recipe
from edge_quantize.training.weights import seeded_weights

from edge.errors import SourceError

pytest.importorskip("torch", reason="PyTorch is not installed: make torch")

from edge_quantize.training import gate, predict
from edge_quantize.training.torch_net import torch_net, torch_weights
from edge_quantize.training.train import _start_weights

FACES = 1000
FLAT, TURNED, REAL = 201, 202, 203
"""Grey levels of masked faces by where they come from."""


@pytest.fixture
def faces() -> Fer2013:
    """Bare faces darker than any masked one; the last hundred are PublicTest's."""
    rows = np.arange(FACES)
    images = np.broadcast_to((rows % 200).astype(np.uint8)[:, None, None], (FACES, 48, 48)).copy()
    public = rows >= FACES - 100
    return Fer2013(images, np.zeros(FACES, np.uint8), public, np.full((FACES, 10), -1, np.int16),
                   rows.astype(np.int32), ~public, ~public)  # fmt: skip


@pytest.fixture
def masks(tmp_path: Path, faces: Fer2013) -> Path:
    """Renderings of every face, each of one grey level, and crops of 400 photographs."""

    def write(name: str, rows: np.ndarray[tuple[int, ...], np.dtype[np.int64]], grey: int) -> None:
        np.savez(tmp_path / name, images=np.full((len(rows), 48, 48), grey, np.uint8), index=rows.astype(np.int32),
                 kind=np.zeros(len(rows), np.uint8))  # fmt: skip

    write("fer2013-train-0.npz", faces.train_rows(), FLAT)
    write("worn-train-0.npz", faces.train_rows(), TURNED)
    write("worn-validation.npz", faces.train_rows(), TURNED)
    write("fer2013-public.npz", faces.public_rows(), FLAT)
    photo = np.arange(400)
    np.savez(tmp_path / "real.npz", images=np.full((400, 48, 48), REAL, np.uint8), label=np.ones(400, np.uint8),
             photo=photo.astype(np.int32), scale=np.ones(400, np.float32))  # fmt: skip
    return tmp_path


def test_a_share_of_the_masks_is_on_turned_heads_and_what_is_no_bare_face_is_left_out(
    faces: Fer2013, masks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "load_fer2013", lambda: faces)
    monkeypatch.setattr(Fer2013, "train_val", lambda self: (self.train_rows()[80:], self.train_rows()[:80]))
    monkeypatch.setattr(samples, "NOT_BARE", (100, 101, 102))
    recipe = replace(load_recipe("gate_turned"), renderings=1, worn_share=0.6, real_repeats=1)
    made = samples.load_samples(recipe, masks)
    grey, masked = made.chips[:, 0, 0], made.targets.argmax(axis=1) == 1
    assert ((grey == TURNED).sum(), (grey == FLAT).sum()) == (492, 328), "six in ten of 820"
    bare = made.row[~masked]
    assert set(bare) == set(range(80, 900)) - {100, 101, 102}
    photos = np.arange(400)
    used = int((~held_out_photos(photos) & ~validation_photos(photos)).sum())
    assert (grey == REAL).sum() == used
    watched = made.validation.chips[:, 0, 0]
    assert (watched == TURNED).sum() == 80
    assert (watched == REAL).sum() == int((validation_photos(photos) & ~held_out_photos(photos)).sum()) > 0

    flat = samples.load_samples(replace(recipe, worn_share=0.0), masks)
    assert not (flat.chips[:, 0, 0] == TURNED).any()
    assert {100, 101, 102} <= set(flat.row), "a recipe from before is shown what it was"


def test_two_renderings_show_every_bare_face_twice(
    faces: Fer2013, masks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "load_fer2013", lambda: faces)
    monkeypatch.setattr(Fer2013, "train_val", lambda self: (self.train_rows()[80:], self.train_rows()[:80]))
    monkeypatch.setattr(samples, "NOT_BARE", ())
    for kind in ("fer2013", "worn"):
        shutil.copy(masks / f"{kind}-train-0.npz", masks / f"{kind}-train-1.npz")
    recipe = replace(load_recipe("gate_turned"), renderings=2, worn_share=0.5, real_repeats=1)
    made = samples.load_samples(recipe, masks)
    grey, masked = made.chips[:, 0, 0], made.targets.argmax(axis=1) == 1
    assert ((grey == TURNED).sum(), (grey == FLAT).sum(), (~masked).sum()) == (820, 820, 1640)


def test_masks_that_were_drawn_for_another_validation_are_refused(
    faces: Fer2013, masks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "load_fer2013", lambda: faces)
    monkeypatch.setattr(Fer2013, "train_val", lambda self: (self.train_rows()[80:], self.train_rows()[:80]))
    np.savez(masks / "worn-validation.npz", images=np.zeros((30, 48, 48), np.uint8), kind=np.zeros(30, np.uint8),
             index=np.arange(70, 100, dtype=np.int32))  # fmt: skip
    with pytest.raises(SourceError, match=r"worn-validation\.npz.*10 of 80.*remove it.*edge-quantize masks"):
        samples.load_samples(load_recipe("gate_turned"), masks)


def test_the_rows_that_are_no_bare_faces_are_training_rows(fer2013: Fer2013) -> None:
    assert len(set(NOT_BARE)) == len(NOT_BARE)
    assert fer2013.usable[list(NOT_BARE)].all()


def test_bare_faces_that_fool_the_gate_come_again() -> None:
    net = nets.NETS["gate"]
    weights = seeded_weights(net)
    chips = np.random.default_rng(0).integers(0, 256, (12, 48, 48)).astype(np.uint8)
    targets = np.eye(2, dtype=np.float32)[np.arange(12) % 2]
    made = Samples(chips, targets, np.arange(12), Labelled(chips, np.arange(12) % 2), {})
    logit = np.log(predict.probabilities(torch_net(net, weights), chips))
    bare = np.arange(0, 12, 2)
    middle = float(np.median(logit[bare, 1] - logit[bare, 0]))
    # Moved so that half of the bare faces are called masked with .2 or more.
    fooled = gate.moved(weights, 1 / (1 + np.exp(-middle - np.log(4))))
    model = torch_net(net, fooled)
    hard = set(bare[predict.probabilities(model, chips)[bare, 1] > gate.HARD])
    assert len(hard) == 3
    again = gate.with_hard(replace(load_recipe("gate_turned"), hard_repeats=2), made, model)
    assert {row: int((again.row == row).sum()) for row in range(12)} == {r: 3 if r in hard else 1 for r in range(12)}
    assert (again.targets[12:].argmax(axis=1) == 0).all()
    assert gate.with_hard(replace(load_recipe("gate_turned"), hard_repeats=0), made, model) is made


def test_the_threshold_is_the_middle_of_those_that_err_least_and_moves_to_a_half() -> None:
    masked = np.array([0.1, 0.55, 0.6, 0.8, 0.9], np.float32)
    labels = np.array([0, 0, 0, 1, 1])
    found = gate.best_threshold(masked, labels)
    assert found == pytest.approx(0.7, abs=0.015)
    net = nets.NETS["gate"]
    weights = seeded_weights(net)
    chips = np.random.default_rng(0).integers(0, 256, (64, 48, 48)).astype(np.uint8)
    before = predict.probabilities(torch_net(net, weights), chips)[:, 1]
    threshold = float(np.quantile(before, 0.3))
    after = predict.probabilities(torch_net(net, gate.moved(torch_weights(torch_net(net, weights)), threshold)), chips)
    np.testing.assert_array_equal(after[:, 1] > 0.5, before > threshold)
    assert (after[:, 1] > 0.5).mean() == pytest.approx(0.7, abs=0.02)


COMMITTED = "bench/training/"


@pytest.mark.parametrize(
    "recipe",
    [
        r
        for r in map(load_recipe, sorted(p.stem for p in RECIPES.glob("*.toml")))
        if (r.init or "").startswith(COMMITTED)
    ],
    ids=lambda recipe: str(recipe.name),
)
def test_the_committed_weights_fit_the_net_of_their_recipe(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    assert recipe.init is not None
    monkeypatch.chdir(Path(__file__).parents[3])
    _start_weights(recipe, recipe.init, Path())
    for name in {recipe.init, recipe.beside or recipe.init}:
        with np.load(name) as kept:
            assert all(array.dtype == np.float16 for array in kept.values() if array.ndim > 1)
