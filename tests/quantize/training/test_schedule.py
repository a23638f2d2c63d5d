"""What validation does to a run, and training on held-out folds and on own faces."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from edge_quantize.datasets.fer2013 import fold_numbers
from edge_quantize.training.own_samples import own_samples
from edge_quantize.training.recipe import Recipe
from edge_quantize.training.run_folder import RunFolder
from edge_quantize.training.schedule import Watch, replayed

from edge.errors import ConfigError, SourceError

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("keras", reason="the host extra is not installed")
pytest.importorskip("torch", reason="PyTorch is not installed: make torch")

from edge_quantize.training import loop, train

MINUTE = Recipe(
    name="m", role="gate", net="gate", budget_minutes=1, schedule="plateau", plateau_patience=0.25, patience=0.5
)
TINY = replace(MINUTE, budget_minutes=0.002, batch=8, warmup_steps=0, bf16=False, patience=0.0)


def test_the_rate_falls_on_a_plateau_and_a_run_that_gets_no_better_ends() -> None:
    watch = Watch()
    assert watch.see(MINUTE, 5, 1.0)
    assert not watch.see(MINUTE, 10, 1.1)
    assert watch.falls == 0, "15 s of the minute have not passed since the best"
    watch.see(MINUTE, 20, 1.1)
    assert watch.falls == 1
    watch.see(MINUTE, 34, 1.1)
    assert watch.falls == 1, "the wait begins anew at each fall"
    assert not watch.ended
    watch.see(MINUTE, 35, 1.1)
    assert (watch.falls, watch.ended, watch.best_at) == (2, True, 5)
    assert MINUTE.rate(500, 0.9, falls=2) == pytest.approx(MINUTE.peak_rate * MINUTE.plateau_factor**2)


def test_a_log_replays_to_the_same_state() -> None:
    history = [(5.0, 1.0), (21.0, 1.2), (30.0, 0.9), (46.0, 0.95)]
    watch = Watch()
    for seconds, loss in history:
        watch.see(MINUTE, seconds, loss)
    assert replayed(MINUTE, history) == watch
    assert (watch.falls, watch.best) == (2, 0.9)


def test_folds_are_even_cover_every_row_once_and_keep_groups_together() -> None:
    groups = np.random.default_rng(0).integers(0, 400, 1000).astype(np.int32)
    fold = fold_numbers(groups, 5, seed=7)
    assert np.array_equal(fold, fold_numbers(groups, 5, seed=7))
    assert set(fold) == set(range(5))
    assert np.bincount(fold).min() > 180
    assert all(len(set(fold[groups == g])) == 1 for g in np.unique(groups))


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """A folder with dark and bright pictures in the gate's two classes, one picture twice."""
    rng = np.random.default_rng(0)
    for k in range(40):
        folder = tmp_path / "faces" / ("masked" if k % 2 else "unmasked")
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"{k}.png"), (rng.integers(0, 60, (60, 60, 3)) + 180 * (k % 2)).astype(np.uint8))
    (tmp_path / "faces" / "masked" / "again.png").write_bytes((tmp_path / "faces" / "masked" / "1.png").read_bytes())
    return tmp_path / "faces"


def test_own_faces_are_split_with_copies_on_one_side(faces: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = own_samples(replace(TINY, data=str(faces)))
    assert len(found.chips) + len(found.validation.chips) == 41
    held = {chip.tobytes() for chip in found.validation.chips}
    assert held
    assert not held & {chip.tobytes() for chip in found.chips}
    assert "to train on unmasked" in capsys.readouterr().err
    bright = found.chips.mean(axis=(1, 2)) > 120
    assert np.array_equal(found.targets[:, 1] == 1, bright)


def test_a_face_stays_on_its_side_when_others_come(faces: Path) -> None:
    before = own_samples(replace(TINY, data=str(faces)))
    cv2.imwrite(str(faces / "masked" / "0.png"), np.random.default_rng(9).integers(0, 256, (48, 48)).astype(np.uint8))
    after = own_samples(replace(TINY, data=str(faces)))
    trained_on = {chip.tobytes() for chip in before.chips}
    assert not trained_on & {chip.tobytes() for chip in after.validation.chips}


def test_masked_versions_are_on_the_side_of_their_faces(faces: Path, tmp_path: Path) -> None:
    """As `masks --input` leaves them: class and name as they were, other pixels, some left out."""
    (faces / "masked" / "again.png").unlink()
    for k, path in enumerate(sorted(faces.rglob("*.png"))):
        if k % 3 == 0:
            continue
        other = tmp_path / "other" / path.relative_to(faces)
        other.parent.mkdir(parents=True, exist_ok=True)
        image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        assert image is not None
        image[30:] = image[:30][::-1]
        cv2.imwrite(str(other), image)
    bare, worn = (own_samples(replace(TINY, data=str(tmp_path / name))) for name in ("faces", "other"))
    held, learned = ([chip[:20].mean() for chip in one] for one in (worn.validation.chips, bare.chips))
    assert held
    # Grey levels of colours are rounded otherwise, so not to the bit.
    assert all(min(abs(one - other) for other in learned) > 0.02 for one in held)


def test_a_class_without_pictures_is_told(faces: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for k, name in enumerate(("happy", "sad")):
        (faces / ("unmasked", "masked")[k]).rename(faces / name)
    own_samples(replace(TINY, role="fer_unmasked", net="fer-cpu", data=str(faces)))
    said = capsys.readouterr().err
    assert "of angry, disgust, fear, neutral, surprise there is no picture to learn it from" in said


def test_own_faces_that_cannot_be_used_are_refused(faces: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (faces / "masked" / "broken.png").write_bytes(b"no picture")
    own_samples(replace(TINY, data=str(faces)))
    assert "1 of 42 pictures cannot be read" in capsys.readouterr().err
    (faces / "bearded").mkdir()
    (faces / "bearded" / "a.png").write_bytes((faces / "masked" / "1.png").read_bytes())
    with pytest.raises(SourceError, match="'bearded' is no class of this model"):
        own_samples(replace(TINY, data=str(faces)))


def test_own_faces_of_one_class_are_too_few(faces: Path) -> None:
    for path in (faces / "masked").iterdir():
        path.unlink()
    with pytest.raises(SourceError, match="two classes at least"):
        own_samples(replace(TINY, data=str(faces)))


def test_each_fold_is_held_out_and_scored(faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.count()
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: next(ticks) / 100))
    recipe = replace(TINY, data=str(faces))
    out = tmp_path / "runs" / "gate"
    made = train.train_folds(recipe, 2, out, tmp_path)
    assert sum(made["n"]) == 41
    assert made["mean"] == pytest.approx(np.mean(made["accuracy"]), abs=1e-4)
    assert json.loads((out / "folds.json").read_text()) == made
    before = (out / "fold-0" / "final.npz").stat().st_mtime_ns
    assert train.train_folds(recipe, 2, out, tmp_path, resume=True) == made
    assert (out / "fold-0" / "final.npz").stat().st_mtime_ns == before, "a finished fold is kept"
    with pytest.raises(ConfigError, match="2 or more"):
        train.train_folds(recipe, 1, out, tmp_path)
    (out / "fold-1" / "result.json").unlink()
    (out / "fold-1" / "checkpoint.npz").unlink()
    monkeypatch.setattr(train, "train", lambda *_, **__: {"stopped_at_step": 1})
    assert train.train_folds(recipe, 2, out, tmp_path, resume=True) == {"stopped_at_step": 1, "fold": 1}
    with pytest.raises(ConfigError, match="a run of another recipe"):
        train.train_folds(replace(recipe, seed=2), 2, out, tmp_path, resume=True)
    assert (out / "fold-0" / "final.npz").stat().st_mtime_ns == before
    assert train.train_folds(recipe, 2, out, tmp_path, again=True) == {"stopped_at_step": 1, "fold": 0}
    assert not list(out.glob("fold-*/final.npz")), "no fold of the time before is taken for one of this"


def test_a_fold_does_not_start_from_a_net_that_has_seen_its_faces(tmp_path: Path) -> None:
    RunFolder(tmp_path / "other").start(TINY)
    with pytest.raises(ConfigError, match="has seen the faces held out"):
        train.train_folds(replace(TINY, init="other"), 2, tmp_path / "gate", tmp_path)
    with pytest.raises(ConfigError, match="starts from a run, or from none"):
        train.train_folds(replace(TINY, init="weights.npz"), 2, tmp_path / "gate", tmp_path)
    with pytest.raises(ConfigError, match="leave it out with folds"):
        train.train_folds(replace(TINY, worn_share=0.5), 2, tmp_path / "gate", tmp_path)


def test_a_fold_of_own_faces_starts_from_fer2013_s_nets_or_from_its_own_fold(tmp_path: Path) -> None:
    own = replace(TINY, data="faces", init="other")
    RunFolder(tmp_path / "other").start(TINY)
    assert train._one_fold(own, 2, 0, tmp_path).init == "other"
    assert train._one_fold(replace(own, init="weights.npz"), 2, 0, tmp_path).init == "weights.npz"
    RunFolder(tmp_path / "between").start(replace(TINY, init="other"))
    assert train._one_fold(replace(own, init="between"), 2, 0, tmp_path).init == "between"
    RunFolder(tmp_path / "other").start(replace(TINY, data="faces"))
    with pytest.raises(ConfigError, match="has seen the faces held out"):
        train._one_fold(replace(own, init="between"), 2, 0, tmp_path)
    with pytest.raises(ConfigError, match="has seen the faces held out: first train --recipe other --folds 2"):
        train._one_fold(own, 2, 0, tmp_path)
    RunFolder(tmp_path / "other" / "fold-0").start(replace(TINY, data="faces", folds=2))
    (tmp_path / "other" / "recipe.json").unlink()  # as train_folds leaves it
    assert train._one_fold(own, 2, 0, tmp_path).init == "other/fold-0"


def test_a_run_that_gets_no_better_ships_its_best_weights(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = itertools.count()
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: next(ticks) / 100))
    losses = iter([0.5, *[0.9] * 1000])
    monkeypatch.setattr(loop, "score", lambda *_: {"accuracy": 0.5, "loss": next(losses), "n": 8})
    run = RunFolder(tmp_path / "run")
    saved: list[Any] = []
    real = run.save_best

    def keep(_run: RunFolder, weights: Any) -> None:  # noqa: ANN401
        saved.append(weights)
        real(weights)

    monkeypatch.setattr(RunFolder, "save_best", keep)
    recipe = replace(TINY, data=str(faces), budget_minutes=0.05, patience=0.2)
    result = train.train(recipe, run, tmp_path)
    assert result["ended_early"]["best_loss"] == 0.5
    assert result["seconds"] < 0.05 * 60
    assert len(saved) == 1
    kernel = next(name for name in saved[0] if name.endswith("kernel"))
    assert np.allclose(run.final_weights()[kernel], saved[0][kernel], atol=1e-3)
