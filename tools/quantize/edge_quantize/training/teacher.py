"""Distillation: the answers of a finished net, or logits from a file, as a share of the targets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from edge.errors import ConfigError, SourceError
from edge_quantize.datasets.fer2013 import load_arrays, load_fer2013
from edge_quantize.training.nets import NETS
from edge_quantize.training.predict import probabilities
from edge_quantize.training.run_folder import RunFolder
from edge_quantize.training.torch_net import torch_net

if TYPE_CHECKING:
    from edge_quantize.training.labelled import F32, U8, Samples
    from edge_quantize.training.loop import Teacher
    from edge_quantize.training.recipe import Recipe
    from edge_quantize.training.torch_net import TorchNet


def with_teacher(recipe: Recipe, samples: Samples, runs: Path) -> Samples:
    """Samples whose targets hold the teacher's share: its answer on the same face without a mask.

    Cross entropy against this mixture and the usual sum of cross entropy and KL differ by a constant.
    Own faces (`recipe.data`) are shown to the teacher as they are, so they must be bare. A teacher with agreeing views
    answers in the loop instead, see `consistent_teacher`.

    Raises:
        ConfigError: the recipe has own faces and a teacher that cannot see them without a mask.
        SourceError: the teacher is not there or not finished.

    """
    if recipe.teacher is None or not recipe.teacher_weight or recipe.teacher_views == "agreeing":
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


def consistent_teacher(recipe: Recipe, runs: Path) -> Teacher | None:
    """What answers the student's own chips in the loop with logits; None where the recipe wants none.

    Several nets (`a + b`) answer together, with the mean of their logits. Raises SourceError when one is not there or
    not finished.
    """
    if recipe.teacher is None or not recipe.teacher_weight or recipe.teacher_views != "agreeing":
        return None
    nets = [load_run(runs / name).eval() for name in recipe.teacher.split(" + ")]
    return lambda x: torch.stack([net(x) for net in nets]).mean(0)


def both_ways(model: TorchNet, faces: U8) -> F32:
    """Probabilities float32 (N, classes), the mean over faces u8 (N, 48, 48) and their mirror images."""
    mirrored = np.ascontiguousarray(faces[:, :, ::-1])
    both: F32 = (probabilities(model, faces) + probabilities(model, mirrored)) / 2
    return both


def view_mean(logits: F32) -> F32:
    """Probabilities float32 (N, classes), the mean over views of softmax(logits (views, N, classes))."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray((shifted / shifted.sum(axis=-1, keepdims=True)).mean(axis=0), np.float32)


def load_run(folder: Path) -> TorchNet:
    """Finished model of a run folder. Raises SourceError when it is not finished."""
    run = RunFolder(folder)
    recipe = run.recipe()
    weights = run.final_weights()
    try:
        return torch_net(NETS[recipe.net], weights)
    except ValueError as error:
        msg = f"{folder}: {error}"
        raise SourceError(msg) from None
