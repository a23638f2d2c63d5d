"""Recipes: what a training run does, as a file of `recipes/*.toml`."""

from __future__ import annotations

import dataclasses
import math
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, get_args

from edge_quantize.augment import Augment
from edge_quantize.nets import NETS

from edge.errors import ConfigError

RECIPES: Final = Path(__file__).parent / "recipes"
Role = Literal["gate", "fer_unmasked", "fer_masked"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that a run depends on besides data, code and seed.

    Rates follow the share of the time budget that is spent: linear over the first `warmup_steps`, then a
    cosine to 0 at the end of the budget, so a run anneals on whatever machine it is. `budget_minutes` is
    time spent in training steps. `l2` is the decay of kernels in the gradient (g + l2 × w). `ema` is the
    decay of the averaged weights, which are what is shipped. `geometry_only_tail` is the last share of the
    budget in which chips are moved but no longer lit, degraded or erased. `init` and `teacher` are run
    folders; the target is (1 - teacher_weight) × label + teacher_weight × the teacher's probabilities at
    `teacher_temperature` on the same face without a mask.
    """

    name: str
    role: Role
    net: str
    budget_minutes: float
    seed: int = 1
    batch: int = 128
    peak_rate: float = 0.1
    momentum: float = 0.9
    warmup_steps: int = 220
    l2: float = 5e-4
    smoothing: float = 0.1
    ema: float = 0.999
    geometry_only_tail: float = 0.1
    votes_weight: float = 0.3
    init: str | None = None
    teacher: str | None = None
    teacher_weight: float = 0.0
    teacher_temperature: float = 1.0
    real_repeats: int = 4
    bf16: bool = True
    augment: Augment = field(default_factory=Augment)

    def rate(self, step: int, spent: float) -> float:
        """Learning rate at a step, when the share `spent` of the budget is gone."""
        warm = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        return self.peak_rate * warm * 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, spent))))

    def ranges(self, spent: float) -> Augment:
        """What to augment by when the share `spent` of the budget is gone."""
        return self.augment if spent < 1 - self.geometry_only_tail else self.augment.geometry_only()


def load_recipe(name: str) -> Recipe:
    """Read `recipes/<name>.toml`, or the file `name`. Raises ConfigError that says what is wrong in it."""
    path = Path(name) if name.endswith(".toml") else RECIPES / f"{name}.toml"
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = ", ".join(sorted(p.stem for p in RECIPES.glob("*.toml")))
        msg = f"no recipe {path}; there are: {known}"
        raise ConfigError(msg) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        msg = f"recipe {path} cannot be read: {error}"
        raise ConfigError(msg) from None
    return recipe_from(table, path.stem, str(path))


def recipe_from(table: dict[str, Any], name: str, where: str) -> Recipe:
    """Recipe of a parsed table. Raises ConfigError at an unknown key, a wrong type or value."""
    values = dict(table)
    ranges = values.pop("augment", {})
    if not isinstance(ranges, dict):
        msg = f"{where}: augment must be a table"
        raise ConfigError(msg)
    _check_types(values, Recipe, where)
    _check_types(ranges, Augment, f"{where} [augment]")
    pairs: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in ranges.items()}
    try:
        recipe = Recipe(name=name, augment=Augment(**pairs), **values)
    except TypeError as error:
        msg = f"{where}: {error}"
        raise ConfigError(msg) from None
    if recipe.net not in NETS:
        msg = f"{where}: net = {recipe.net!r} is not one of {', '.join(NETS)}"
        raise ConfigError(msg)
    if recipe.role not in get_args(Role):
        msg = f"{where}: role = {recipe.role!r} is not one of {', '.join(get_args(Role))}"
        raise ConfigError(msg)
    if recipe.budget_minutes <= 0 or recipe.batch < 1 or not 0 <= recipe.ema < 1:
        msg = f"{where}: budget_minutes and batch must be positive, ema in [0, 1)"
        raise ConfigError(msg)
    return recipe


def _check_types(values: dict[str, Any], cls: type, where: str) -> None:
    """Raise ConfigError at the first key that `cls` does not have, or whose value has another type."""
    kinds = {f.name: str(f.type) for f in dataclasses.fields(cls)}
    kinds.pop("name", None)
    for key, value in values.items():
        if key not in kinds:
            msg = f"{where}: unknown key {key!r}"
            raise ConfigError(msg)
        if not _fits(value, kinds[key]):
            msg = f"{where}: {key} = {value!r} should be {kinds[key]}"
            raise ConfigError(msg)


def _fits(value: object, kind: str) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind.startswith("tuple"):
        return isinstance(value, list) and len(value) == 2 and all(_fits(v, "float") for v in value)
    if kind == "float":
        return number
    if kind == "int":
        return number and isinstance(value, int)
    return isinstance(value, bool) if kind == "bool" else isinstance(value, str)
