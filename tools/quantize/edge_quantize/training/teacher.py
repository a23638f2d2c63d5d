"""Distillation: the answers of a finished net, or logits from a file, as a share of the targets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge.errors import ConfigError, SourceError
from edge_quantize.datasets.fer2013 import load_arrays, load_fer2013
from edge_quantize.training.nets import NETS, build_keras, set_keras_weights
from edge_quantize.training.predict import probabilities
from edge_quantize.training.run_folder import RunFolder

if TYPE_CHECKING:
    from edge_quantize.training.labelled import F32, U8, Samples
    from edge_quantize.training.recipe import Recipe


def with_teacher(recipe: Recipe, samples: Samples, runs: Path) -> Samples:
    """Samples whose targets hold the teacher's share: its answer on the same face without a mask.

    Cross entropy against this mixture and the usual sum of cross entropy and KL differ by a constant.
    Own faces (`recipe.data`) are shown to the teacher as they are, so they must be bare.

    Raises:
        ConfigError: the recipe has own faces and a teacher that cannot see them without a mask.
        SourceError: the teacher is not there or not finished.

    """
    if recipe.teacher is None or not recipe.teacher_weight:
        return samples
    from_file = recipe.teacher.endswith(".npz")
    if recipe.data is not None and (from_file or recipe.role != "fer_unmasked"):
        msg = f"recipe {recipe.name}: with data = {recipe.data!r} only a finished run can teach, and only fer_unmasked"
        raise ConfigError(msg)
    rows, back = np.unique(samples.row, return_inverse=True)
    if from_file:
        mean = view_mean(load_arrays(Path(recipe.teacher), ("logits",))["logits"].astype(np.float32))[rows]
    elif recipe.data is not None:
        mean, back = both_ways(load_run(runs / recipe.teacher), samples.chips), np.arange(len(samples.chips))
    else:
        mean = both_ways(load_run(runs / recipe.teacher), load_fer2013().images[rows])
    softened = mean ** (1 / recipe.teacher_temperature)
    answers = softened / softened.sum(axis=1, keepdims=True)
    w = recipe.teacher_weight
    return replace(samples, targets=(1 - w) * samples.targets + w * answers[back])


def both_ways(model: Any, faces: U8) -> F32:  # noqa: ANN401
    """Probabilities float32 (N, classes), the mean over faces u8 (N, 48, 48) and their mirror images."""
    mirrored = np.ascontiguousarray(faces[:, :, ::-1])
    return (probabilities(model, faces) + probabilities(model, mirrored)) / 2


def view_mean(logits: F32) -> F32:
    """Probabilities float32 (N, classes), the mean over views of softmax(logits (views, N, classes))."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray((shifted / shifted.sum(axis=-1, keepdims=True)).mean(axis=0), np.float32)


def load_run(folder: Path) -> Any:  # noqa: ANN401
    """Finished model of a run folder (logits). Raises SourceError when it is not finished."""
    run = RunFolder(folder)
    recipe = run.recipe()
    weights = run.final_weights()
    net = NETS[recipe.net]
    model = build_keras(net)
    try:
        set_keras_weights(net, model, weights)
    except ValueError as error:
        msg = f"{folder}: {error}"
        raise SourceError(msg) from None
    return model
