"""What only the gate's training does: bare faces that fool it come again, and its answer changes at .5."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from edge_quantize.training.predict import probabilities

if TYPE_CHECKING:
    from edge_quantize.training.labelled import F32, I64, Samples
    from edge_quantize.training.recipe import Recipe
    from edge_quantize.training.torch_net import TorchNet
    from edge_quantize.training.weights import Weights

HARD: Final = 0.2
"""Bare faces that are called masked with more than this probability are hard."""
THRESHOLDS: Final = np.linspace(0.2, 0.9, 71)


def with_hard(recipe: Recipe, samples: Samples, model: TorchNet) -> Samples:
    """The same samples with the bare faces that `model` half believes to be masked `hard_repeats` times more."""
    if not recipe.hard_repeats:
        return samples
    bare = np.flatnonzero(samples.targets.argmax(axis=1) == 0)
    hard = bare[probabilities(model, samples.chips[bare])[:, 1] > HARD]
    again = np.concatenate([np.arange(len(samples.chips)), np.repeat(hard, recipe.hard_repeats)])
    return replace(samples, chips=samples.chips[again], targets=samples.targets[again], row=samples.row[again])


def best_threshold(masked: F32, labels: I64) -> float:
    """Probability of a mask above which calling a face masked errs least: the middle of all that err equally little.

    Args:
        masked: (N,) probabilities of a mask.
        labels: (N,) 1 for masked.

    """
    errors = np.array([((masked >= t) != (labels == 1)).sum() for t in THRESHOLDS])
    return float(np.median(THRESHOLDS[errors == errors.min()]))


def moved(weights: Weights, threshold: float) -> Weights:
    """Weights of a net whose answer changes at .5 where that of the given ones changes at the threshold."""
    bias = weights["head/bias"].copy()
    bias[1] -= np.float32(np.log(threshold / (1 - threshold)))
    return weights | {"head/bias": bias}
