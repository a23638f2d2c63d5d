"""Recipes: what a run depends on, read from TOML and refused where it does not fit."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from edge_quantize.training import nets
from edge_quantize.training.augment import Augment
from edge_quantize.training.recipe import RECIPES, Recipe, load_recipe, recipe_from

from edge.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda p: p.stem)
def test_every_recipe_loads(path: Path) -> None:
    recipe = load_recipe(path.stem)
    assert recipe.name == path.stem
    assert nets.NETS[recipe.net].classes == (2 if recipe.role == "gate" else 7)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"peak_rat": 0.1}, "unknown key 'peak_rat'"),
        ({"batch": "many"}, "batch = 'many' should be int"),
        ({"batch": True}, "batch = True should be int"),
        ({"net": "vgg"}, "net = 'vgg'"),
        ({"role": "chin"}, "role = 'chin'"),
        ({"budget_minutes": 0}, "positive"),
        ({"budget_minutes": float("nan")}, "positive"),
        ({"augment": {"scale": [1]}}, "scale"),
        ({"augment": {"zoom": 1}}, "unknown key 'zoom'"),
        ({"augment": 3}, "must be a table"),
        ({"folds": 3, "fold": 0, "worn_share": 0.5}, "leave it out with folds"),
        ({"role": "fer_unmasked", "net": "fer-cpu", "worn_share": 0.5}, "worn_share is of masked faces"),
        ({"role": "gate", "worn_share": 0.5, "data": "faces"}, "worn_share is of masked faces of FER2013"),
        ({"role": "fer_unmasked"}, "gate tells 2 classes, fer_unmasked has 7"),
        ({"role": "fer_masked", "net": "fer-cpu", "fit_threshold": True}, "are a gate's"),
        ({"role": "fer_masked", "net": "fer-cpu", "hard_repeats": 4}, "are a gate's"),
        ({"teacher": "gate"}, "teacher and teacher_weight go together"),
        ({"teacher_weight": 0.5}, "teacher and teacher_weight go together"),
        ({"teacher": "gate", "teacher_weight": 3.0}, r"teacher_weight and .* \[0, 1\]"),
        ({"teacher": "gate", "teacher_weight": 0.5, "teacher_temperature": 0}, "teacher_temperature positive"),
        ({"peak_rate": float("nan")}, "peak_rate must be a positive number"),
        ({"smoothing": 5.0}, "smoothing and ema"),
        ({"augment": {"gamma": [0.0, 2.0]}}, "gamma, contrast and gain must be ranges above 0"),
        ({"augment": {"scale": [1.2, 0.8]}}, "the lesser end first"),
        ({"augment": {"p_camera": 1.5}}, "p_camera, p_erase and side"),
        ({"augment": {"erase": [0.1, 2.0]}}, "erase must be a range"),
    ],
)
def test_a_bad_recipe_is_refused(change: dict[str, Any], complaint: str) -> None:
    table = {"role": "gate", "net": "gate", "budget_minutes": 1.0} | change
    with pytest.raises(ConfigError, match=complaint):
        recipe_from(table, "x", "x.toml")


def test_an_unknown_recipe_names_the_known(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"fer_masked, .*fer_unmasked"):
        load_recipe("fer_unmaked")
    broken = tmp_path / "broken.toml"
    for text in ("role = ", "x = " + "[" * 5000):
        broken.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError, match="broken"):
            load_recipe(str(broken))


def test_the_rate_warms_up_and_anneals_with_the_budget() -> None:
    recipe = Recipe("x", "gate", "gate", 1.0, peak_rate=0.1, warmup_steps=10)
    assert recipe.rate(0, 0.0) == pytest.approx(0.01)
    assert recipe.rate(9, 0.0) == pytest.approx(0.1)
    assert recipe.rate(500, 0.5) == pytest.approx(0.05)
    assert recipe.rate(500, 1.0) == pytest.approx(0)
    assert recipe.rate(500, 1.3) == pytest.approx(0)  # a step that ends after the budget
    assert recipe.ranges(0.5) == recipe.augment
    assert replace(recipe, augment=Augment()).ranges(0.95).p_camera == 0
