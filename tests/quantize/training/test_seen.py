"""Training faces as the device cuts them from scenes (`seen`), and with masks as they sit (`worn_share`)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from edge_quantize.cli import main
from edge_quantize.datasets import fer2013 as data_set
from edge_quantize.datasets.fer2013 import SEEN, Fer2013, Rendered, load_rendered
from edge_quantize.training import samples
from edge_quantize.training.recipe import Recipe, load_recipe, recipe_from

from edge.errors import ConfigError, SourceError

if TYPE_CHECKING:
    from pathlib import Path

    from edge_quantize.training.recipe import Role

ROLES = ("fer_unmasked", "fer_masked")


def some(fer: Fer2013, count: int) -> Fer2013:
    """The first faces of a data set, as if there were no others."""
    return Fer2013(fer.images[:count], fer.labels[:count], fer.public[:count], fer.votes[:count],
                   fer.dup_group[:count], fer.usable[:count], fer.drawn_from[:count])  # fmt: skip


def save(folder: Path, name: str, rows: np.ndarray[Any, np.dtype[np.int64]], grey: int) -> None:
    chips = np.full((len(rows), 48, 48), grey, np.uint8)
    Rendered(chips, rows.astype(np.int32), np.zeros(len(rows), np.uint8)).save(folder / name)


@pytest.fixture
def recipe() -> Recipe:
    return recipe_from({"role": "fer_unmasked", "net": "fer-cpu", "budget_minutes": 1.0, "seen": True}, "x", "x.toml")


@pytest.mark.parametrize("role", ROLES)
def test_a_recipe_with_seen_trains_on_faces_from_scenes_but_on_none_held_out(
    role: Role, recipe: Recipe, fer2013: Fer2013, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fer = some(fer2013, 400)
    monkeypatch.setattr(samples, "load_fer2013", lambda: fer)
    rows = fer.train_rows()
    monkeypatch.setattr(Fer2013, "train_val", lambda _self: (rows[20:], rows[:20]))
    for name in ("fer2013-train-0.npz", "fer2013-public.npz"):
        save(tmp_path, name, rows, 100)
    save(tmp_path, SEEN[role], rows[::2], 7)
    recipe = replace(recipe, role=role)
    made = samples.load_samples(recipe, tmp_path)
    seen = (made.chips == 7).all(axis=(1, 2))
    assert made.row[seen].tolist() == rows[20::2].tolist()
    assert (made.targets[seen].argmax(1) == fer.labels[rows[20::2]]).all()
    assert not (made.validation.chips == 7).all(axis=(1, 2)).any()
    without = samples.load_samples(replace(recipe, seen=False), tmp_path)
    assert len(without.chips) == len(made.chips) - seen.sum()
    (tmp_path / SEEN[role]).unlink()
    with pytest.raises(SourceError, match="edge-quantize scenes"):
        samples.load_samples(recipe, tmp_path)


@pytest.mark.parametrize(
    ("share", "flat", "worn"), [(0.0, 100, 0), (0.2, 100, 25), (0.5, 100, 100), (0.8, 25, 100), (1.0, 0, 100)]
)
def test_masks_as_they_sit_come_besides_flat_ones_up_to_a_half(
    share: float,
    flat: int,
    worn: int,
    *,
    recipe: Recipe,
    fer2013: Fer2013,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fer = some(fer2013, 400)
    monkeypatch.setattr(samples, "load_fer2013", lambda: fer)
    rows = fer.train_rows()[:120]
    monkeypatch.setattr(Fer2013, "train_val", lambda _self: (rows[20:], rows[:20]))
    for name, level in (("fer2013-train-0.npz", 100), ("worn-train-0.npz", 50), ("fer2013-public.npz", 100)):
        save(tmp_path, name, rows, level)
    recipe = replace(recipe, role="fer_masked", seen=False, worn_share=share)
    made = samples.load_samples(recipe, tmp_path)
    grey = made.chips[:, 0, 0]
    assert ((grey == 100).sum(), (grey == 50).sum()) == (flat, worn)
    assert set(made.row) <= set(rows[20:]), "none held out"
    assert (made.targets.argmax(1) == fer.labels[made.row]).all()
    assert (made.validation.chips == 100).all(), "watched by flat masks, as before"


@pytest.mark.parametrize("change", [{"role": "gate", "net": "gate"}, {"data": "faces"}])
def test_seen_is_of_expression_nets_and_fer2013(change: dict[str, Any]) -> None:
    table = {"role": "fer_masked", "net": "fer-cpu", "budget_minutes": 1.0, "seen": True} | change
    with pytest.raises(ConfigError, match="seen is of FER2013"):
        recipe_from(table, "x", "x.toml")


def test_seen_is_refused_with_own_faces_given_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed: make torch")
    assert main(["train", "--recipe", "fer_masked_plain_rough", "--data", str(tmp_path)]) == ConfigError.exit_code
    assert "seen is of FER2013" in capsys.readouterr().err


def test_scenes_cuts_each_face_from_where_it_was_set(
    fer2013: Fer2013, data: Path, bundle_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fer = some(fer2013, 40)
    monkeypatch.setenv("EDGE_DATA", str(data))
    monkeypatch.setattr(data_set, "load_fer2013", lambda: fer)
    rows = fer.train_rows()
    Rendered(fer.images[rows], rows.astype(np.int32), np.ones(len(rows), np.uint8)).save(
        tmp_path / "fer2013-train-0.npz"
    )
    assert main(["scenes", "--bundle", str(bundle_folder), "--folder", str(tmp_path)]) == 0
    for role in ROLES:
        seen = load_rendered(tmp_path / SEEN[role])
        assert len(rows) / 2 < len(seen.index) <= len(rows)
        assert (seen.kind == (role == "fer_masked")).all()
        coarse = [np.array([cv2.resize(one, (12, 12), interpolation=cv2.INTER_AREA).ravel() for one in chips])
                  for chips in (seen.images, fer.images[rows])]  # fmt: skip
        alike = np.corrcoef(coarse[0], coarse[1])[: len(seen.index), len(seen.index) :]
        assert (rows[alike.argmax(axis=1)] == seen.index).mean() > 0.4, "by chance one in forty"
    kept = (tmp_path / SEEN["fer_masked"]).stat().st_mtime_ns
    assert main(["scenes", "--bundle", str(bundle_folder), "--folder", str(tmp_path)]) == 0
    assert (tmp_path / SEEN["fer_masked"]).stat().st_mtime_ns == kept


def test_the_shipped_recipes_that_see_scenes_are_of_expression_nets() -> None:
    assert load_recipe("fer_masked_plain_rough").seen
    assert load_recipe("fer_unmasked_plain_rough").seen
