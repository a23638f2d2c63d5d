"""Recipes: what a training run does, as a file of `recipes/*.toml`."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, get_args

from edge.config.text import decode_text
from edge.errors import ConfigError
from edge.toml import read_toml
from edge.types import EMOTIONS, ROUTES
from edge_quantize.training.augment import Augment
from edge_quantize.training.nets import NETS

RECIPES: Final = Path(__file__).parent / "recipes"
Role = Literal["gate", "fer_unmasked", "fer_masked"]
Schedule = Literal["cosine", "plateau", "stable"]
Views = Literal["bare", "agreeing"]


RENDERINGS: Final = 2
"""Masked renderings of the training split that are used where they exist."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that a run depends on besides data, code and seed.

    Rates follow the share of the time budget that is spent, so a run anneals on whatever machine it is: linear
    over the first `warmup_steps`, then (`schedule = "cosine"`) a cosine to 0 at the end of the budget, or
    (`"plateau"`) × `plateau_factor` whenever validation loss has not got better for `plateau_patience` of the
    budget, or (`"stable"`) the peak until the last `decay_share` of the budget, then a line to 0: such a run can be
    taken up again from before its decay. A run ends early, with its best weights, when validation loss has not got
    better for the share `patience` of the budget; 0 never does. `budget_minutes` is time spent in training steps.

    `l2` is the decay of kernels in the gradient (g + l2 × w). `ema` is the decay of the averaged weights, which
    are what is shipped. `geometry_only_tail` is the last share of the budget in which chips are moved but no
    longer lit, degraded or erased. `init` and `teacher` are run folders or several ("a + b"): of an `init` the
    weights are averaged, of a `teacher` the answers; the target is (1 - teacher_weight) × label + teacher_weight ×
    the teacher's probabilities at `teacher_temperature`, on the same face without a mask as it lies in the data
    (`teacher_views = "bare"`), or on the very chip the student sees (`"agreeing"`). `mixup` is the α of Zhang et al.
    2018, 0 for none. Weights of a shallower net of the same widths may be an `init`: the blocks they lack begin as
    the identity. With `"imagenet"`, `fer-lite` starts from what EfficientNet-lite0 learned there. A net of two trunks
    gets the second one's weights from `beside`, whose logits count by `beside_share`, those of `init` by the rest.

    With `seen` an expression net trains on the faces as the device cuts them from scenes too (`edge-quantize scenes`).
    `worn_share` of the masked faces that are not from scenes are of `worn-train-*.npz`, masks on turned heads as they
    sit (not for bare faces).

    The gate's own: `renderings` masked faces for each bare one, which comes as often; bare faces that the weights it
    starts from call masked stand `hard_repeats` times more in its training data; with `fit_threshold` the head's bias
    is moved so that the answer changes at .5 where validation is told apart best.

    `data` is a folder or CSV of own faces that take FER2013's place. With `folds`, the `fold`-th of so many parts of
    the faces is held out and scored.
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
    votes_weight: float = 0.1
    mixup: float = 0.0
    init: str | None = None
    beside: str | None = None
    beside_share: float = 0.5
    teacher: str | None = None
    teacher_weight: float = 0.0
    teacher_temperature: float = 1.0
    teacher_views: Views = "bare"
    seen: bool = False
    real_repeats: int = 4
    renderings: int = 1
    worn_share: float = 0.0
    hard_repeats: int = 0
    fit_threshold: bool = False
    bf16: bool = True
    schedule: Schedule = "cosine"
    decay_share: float = 0.35
    plateau_factor: float = 0.3
    plateau_patience: float = 0.08
    patience: float = 0.0
    data: str | None = None
    folds: int = 0
    fold: int = 0
    augment: Augment = field(default_factory=Augment)

    def rate(self, step: int, spent: float, falls: int = 0) -> float:
        """Learning rate at a step, when the share `spent` of the budget is gone and after so many plateaus."""
        warm = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        if self.schedule == "plateau":
            return self.peak_rate * warm * self.plateau_factor**falls
        if self.schedule == "stable":
            return self.peak_rate * warm * min(1.0, max(0.0, (1 - spent) / self.decay_share))
        return self.peak_rate * warm * 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, spent))))

    def ranges(self, spent: float) -> Augment:
        """What to augment by when the share `spent` of the budget is gone."""
        return self.augment if spent < 1 - self.geometry_only_tail else self.augment.geometry_only()


def load_recipe(name: str) -> Recipe:
    """Read `recipes/<name>.toml`, or the file `name`. Raises ConfigError that says what is wrong in it."""
    path = Path(name) if name.endswith(".toml") else RECIPES / f"{name}.toml"
    try:
        table = read_toml(decode_text(path.read_bytes()))
    except FileNotFoundError:
        known = ", ".join(sorted(p.stem for p in RECIPES.glob("*.toml")))
        msg = f"no recipe {path}; there are: {known}"
        raise ConfigError(msg) from None
    except (OSError, ValueError) as error:  # a TOMLDecodeError is one
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
    check_recipe(recipe, where)
    return recipe


def check_recipe(recipe: Recipe, where: str) -> None:
    """Raise ConfigError at the first value that does not fit, named as one of `where`."""
    choices = {"net": tuple(NETS), "role": get_args(Role), "schedule": get_args(Schedule)}
    choices["teacher_views"] = get_args(Views)
    for key, known in choices.items():
        if getattr(recipe, key) not in known:
            msg = f"{where}: {key} = {getattr(recipe, key)!r} is not one of {', '.join(known)}"
            raise ConfigError(msg)
    for wrong in (_wrong_numbers(recipe), _wrong_ranges(recipe.augment), _wrong_together(recipe)):
        for message, is_wrong in wrong.items():
            if is_wrong:
                msg = f"{where}: {message}"
                raise ConfigError(msg)


def _wrong_numbers(recipe: Recipe) -> dict[str, Any]:
    """What each number must be, and whether it is not. `not a < x` is true of NaN, too."""
    return {
        "budget_minutes and batch must be positive": not 0 < recipe.budget_minutes < math.inf or recipe.batch < 1,
        "peak_rate must be a positive number, warmup_steps and l2 not negative": (
            not 0 < recipe.peak_rate < math.inf or recipe.warmup_steps < 0 or not 0 <= recipe.l2 < math.inf
        ),
        "momentum, smoothing and ema must be in [0, 1)": (
            not all(0 <= share < 1 for share in (recipe.momentum, recipe.smoothing, recipe.ema))
        ),
        "votes_weight, teacher_weight and geometry_only_tail must be in [0, 1], teacher_temperature positive": (
            not all(0 <= share <= 1 for share in (recipe.votes_weight, recipe.teacher_weight))
            or not 0 <= recipe.geometry_only_tail <= 1
            or not 0 < recipe.teacher_temperature < math.inf
        ),
        "beside_share must be between 0 and 1": not 0 < recipe.beside_share < 1,
        "decay_share must be above 0 and at most 1, mixup not negative": (
            not 0 < recipe.decay_share <= 1 or not 0 <= recipe.mixup < math.inf
        ),
        "plateau_factor must be between 0 and 1, plateau_patience positive, patience in [0, 1)": (
            not 0 < recipe.plateau_factor < 1 or not recipe.plateau_patience > 0 or not 0 <= recipe.patience < 1
        ),
        f"worn_share must be in [0, 1], hard_repeats not negative, renderings from 1 to {RENDERINGS}": (
            not 0 <= recipe.worn_share <= 1 or recipe.hard_repeats < 0 or not 1 <= recipe.renderings <= RENDERINGS
        ),
        "real_repeats must not be negative": recipe.real_repeats < 0,
        "folds must be 2 or more, fold from 0 to folds - 1": (
            (recipe.folds or recipe.fold) and not (recipe.folds >= 2 and 0 <= recipe.fold < recipe.folds)
        ),
    }


def _wrong_ranges(augment: Augment) -> dict[str, Any]:
    """The same of what chips are augmented by."""
    shares = (augment.flip, augment.p_light, augment.p_camera, augment.p_erase, augment.side)
    above = (augment.scale, augment.gamma, augment.contrast, augment.gain)
    return {
        "flip, p_light, p_camera, p_erase and side must be in [0, 1]": not all(0 <= share <= 1 for share in shares),
        "scale, gamma, contrast and gain must be ranges above 0, the lesser end first": (
            not all(0 < low <= high < math.inf for low, high in above)
        ),
        "erase must be a range in [0, 1], the lesser end first": (not 0 <= augment.erase[0] <= augment.erase[1] <= 1),
        "rotate, shift and noise must not be negative": (
            not all(0 <= one < math.inf for one in (augment.rotate, augment.shift, augment.noise))
        ),
    }


def _wrong_together(recipe: Recipe) -> dict[str, Any]:
    """What does not go together: it would end in numpy's words, or do nothing without a word."""
    classes, gate = len(ROUTES if recipe.role == "gate" else EMOTIONS), recipe.role == "gate"
    return {
        f"{recipe.net} tells {NETS[recipe.net].classes} classes, {recipe.role} has {classes}": (
            NETS[recipe.net].classes != classes
        ),
        "renderings, hard_repeats and fit_threshold are a gate's: leave them out": (
            not gate and (recipe.renderings > 1 or recipe.hard_repeats or recipe.fit_threshold)
        ),
        "teacher and teacher_weight go together": (recipe.teacher is None) != (recipe.teacher_weight == 0),
        "init and beside go with a net of two trunks, beside with no other": (
            (recipe.beside is None) != (not NETS[recipe.net].beside) or (recipe.beside and not recipe.init)
        ),
        "seen is of FER2013's faces and expression nets: leave it out of a gate's recipe and with data": (
            recipe.seen and (gate or recipe.data is not None)
        ),
        "worn_share is of masked faces of FER2013: leave it out of a recipe for bare ones and with data": (
            recipe.worn_share > 0 and (recipe.role == "fer_unmasked" or recipe.data is not None)
        ),
        "worn_share is of masks drawn for one validation split: leave it out with folds": (
            recipe.folds and recipe.worn_share > 0
        ),
    }


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
