"""Training by a recipe: gate and both FER nets, alone or fold by fold."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from edge.errors import ConfigError
from edge_quantize.training import imagenet
from edge_quantize.training.equalise import equalised
from edge_quantize.training.gate import best_threshold, moved, with_hard
from edge_quantize.training.keras_net import load_keras, save_keras
from edge_quantize.training.loop import State, estimate_normalisation, run_steps
from edge_quantize.training.memory import keep_freed_memory
from edge_quantize.training.nets import NETS
from edge_quantize.training.origins import has_own_faces
from edge_quantize.training.predict import probabilities, score
from edge_quantize.training.recipe import check_recipe
from edge_quantize.training.run_folder import RunFolder, load_all
from edge_quantize.training.samples import load_samples
from edge_quantize.training.schedule import replayed
from edge_quantize.training.teacher import consistent_teacher, with_teacher
from edge_quantize.training.torch_net import set_torch_weights, torch_net, torch_weights
from edge_quantize.training.weights import deepened, paired

if TYPE_CHECKING:
    from edge_quantize.training.labelled import Samples
    from edge_quantize.training.recipe import Recipe
    from edge_quantize.training.torch_net import TorchNet
    from edge_quantize.training.weights import Weights

EQUALISE_CHIPS: Final = 1000
"""Chips on which the ranges of bottlenecks are measured."""


def _start_weights(recipe: Recipe, init: str, runs: Path) -> Weights:
    """The weights that a recipe starts from, for its net. Raises ConfigError where they do not fit it."""
    net = NETS[recipe.net]
    if init == imagenet.NAME:
        return imagenet.start(net, recipe.seed)
    try:
        weights = _weights_of(init, runs)
        if recipe.beside is not None:
            weights = paired(weights, _weights_of(recipe.beside, runs), recipe.beside_share)
        return deepened(net, weights, recipe.seed)
    except (ValueError, KeyError) as error:
        named = init if recipe.beside is None else f"{init} and {recipe.beside}"
        msg = f"{recipe.name}: the weights of {named} are not of {recipe.net} ({error}): give others, or their net"
        raise ConfigError(msg) from error


def _weights_of(init: str, runs: Path) -> Weights:
    """Neutral weights of a file (`.npz`, or a bundle's `.keras`), of a finished run, or the mean of several (`a + b`).

    Runs that branched from one net can be averaged: Wortsman et al., "Model soups" (2022).
    """
    read = {".npz": load_all, ".keras": load_keras}
    each = [
        read[Path(name).suffix](Path(name)) if Path(name).suffix in read else RunFolder(runs / name).final_weights()
        for name in init.split(" + ")
    ]
    return {key: np.mean([one[key] for one in each], axis=0, dtype=np.float32) for key in each[0]}


def train(
    recipe: Recipe, run: RunFolder, masks: Path, *, resume: bool = False, again: bool = False, runs: Path | None = None
) -> dict[str, Any]:
    """Train by a recipe into a run folder and return its result (also `result.json` there).

    SIGTERM and SIGINT save a checkpoint and end the run early; `resume` goes on from the last one.

    Args:
        recipe: what to do.
        run: folder to write.
        masks: folder of rendered masks and real crops.
        resume: go on from the last checkpoint.
        again: remove a run that is there.
        runs: where `init` and `teacher` are looked for, if not beside the run.

    Raises:
        SourceError: data are missing.
        ConfigError: there is nothing to resume, or a run of another recipe; a run is there, or going on; the recipe
            does not fit its data or the weights it starts from; the loss is no number any more.

    """
    with run.locked():
        if resume:
            run.go_on_with(recipe)
        elif not again:
            run.refuse_taken()
        return _train(recipe, run, masks, runs or run.path.parent, resume=resume)


def _train(recipe: Recipe, run: RunFolder, masks: Path, runs: Path, *, resume: bool) -> dict[str, Any]:
    keep_freed_memory()
    torch.manual_seed(recipe.seed)
    samples = load_samples(recipe, masks)
    net = NETS[recipe.net]
    begun, model, average = torch_net(net), torch_net(net), torch_net(net)
    if recipe.init is not None and not (resume and not recipe.hard_repeats):
        set_torch_weights(begun, _start_weights(recipe, recipe.init, runs))
    state = State()
    if resume:
        live, averaged, state.step, state.seconds = run.load_checkpoint()
        set_torch_weights(model, live)
        set_torch_weights(average, averaged)
        state.watch = replayed(recipe, run.rewind(state.step))
    else:
        set_torch_weights(model, torch_weights(begun))
        set_torch_weights(average, torch_weights(begun))
    samples, teacher = with_teacher(recipe, with_hard(recipe, samples, begun), runs), consistent_teacher(recipe, runs)
    if not resume:  # not before all is there: it removes what the run before has left
        run.start(recipe)
    run_steps(recipe, run, samples, model, average, state, teacher)
    if state.stopping:
        return {"stopped_at_step": state.step}
    if state.watch.ended:
        set_torch_weights(average, run.best_weights())
    estimate_normalisation(average, samples, recipe.seed)
    if recipe.fit_threshold:
        held = samples.validation
        state.threshold = best_threshold(probabilities(average, held.chips)[:, 1], held.labels)
        set_torch_weights(average, moved(torch_weights(average), state.threshold))
    return finish(recipe, run, samples, average, state)


def finish(
    recipe: Recipe,
    run: RunFolder,
    samples: Samples,
    model: TorchNet,
    state: State,
) -> dict[str, Any]:
    """Score the finished model, write its weights, `final.keras` (equalised) and `result.json`; returns the result."""
    weights, net = torch_weights(model), NETS[recipe.net]
    run.save_final(weights)
    shown = np.random.default_rng(recipe.seed).permutation(len(samples.chips))[:EQUALISE_CHIPS]
    save_keras(net, equalised(net, weights, samples.chips[shown]), run.path / "final.keras")
    scores = {"validation": score(model, samples.validation)}
    scores |= {name: score(model, labelled) for name, labelled in samples.tests.items()}
    result: dict[str, Any] = {"recipe": recipe.name, "steps": state.step, "seconds": round(state.seconds)}
    if state.watch.ended:
        result["ended_early"] = {"best_loss": state.watch.best, "at_seconds": round(state.watch.best_at)}
    if recipe.fit_threshold:
        result["threshold"] = round(state.threshold, 3)
    result["scores"] = scores
    run.write_result(result)
    return result


def train_folds(
    recipe: Recipe, folds: int, out: Path, masks: Path, *, resume: bool = False, again: bool = False
) -> dict[str, Any]:
    """Train once for each part of the faces, which is held out and scored; images of one picture stay together.

    Finished runs are kept with `resume`, removed with `again`. Returns, and writes to `folds.json`, the accuracy of
    each held-out part, its size, and their mean and standard deviation (n - 1).

    Raises:
        ConfigError: fewer than two folds, runs of another recipe to resume, or a net to start from that has seen the
            faces held out.
        SourceError: data are missing.

    """
    if folds < 2:
        msg = f"--folds must be 2 or more, not {folds}"
        raise ConfigError(msg)
    runs = [RunFolder(out / f"fold-{fold}") for fold in range(folds)]
    if again:  # all at once: a --resume after a stop would take later folds of the time before for finished ones
        for run in runs:
            run.clear()
    scores = []
    for fold, run in enumerate(runs):
        one = _one_fold(recipe, folds, fold, out.parent)
        done = run.result() if resume else None
        if done is not None and run.recipe() != one:
            msg = f"{run.path} holds a run of another recipe: --again trains anew, --out names another folder"
            raise ConfigError(msg)
        if done is None:
            going_on = resume and (run.path / "checkpoint.npz").exists()
            done = train(one, run, masks, resume=going_on, runs=out.parent)
        if "scores" not in done:
            return done | {"fold": fold}
        scores.append(done["scores"]["held_out"])
    accuracies = np.array([s["accuracy"] for s in scores])
    figure = {
        "recipe": recipe.name,
        "accuracy": [round(float(a), 4) for a in accuracies],
        "n": [s["n"] for s in scores],
        "mean": round(float(accuracies.mean()), 4),
        "sd": round(float(accuracies.std(ddof=1)), 4),
    }
    (out / "folds.json").write_text(json.dumps(figure, indent=1) + "\n", encoding="utf-8")
    return figure


def _one_fold(recipe: Recipe, folds: int, fold: int, runs: Path) -> Recipe:
    """The recipe of one fold. Nets it starts from or learns from must not have seen the faces held out.

    With own faces they are nets of FER2013, or of the same folds: a face's masked version is of its fold.
    """
    one = dataclasses.replace(recipe, name=f"{recipe.name}-fold-{fold}", folds=folds, fold=fold)
    check_recipe(one, recipe.name)
    changes: dict[str, Any] = {}
    for key in ("init", "beside", "teacher"):
        named = getattr(recipe, key)
        if named is None or named == imagenet.NAME:
            continue
        if recipe.data is not None and _has_not_seen_own(named, runs):
            continue
        if Path(named).suffix in {".npz", ".keras"}:
            msg = f"{key} = {named!r} has seen the faces held out: give a recipe that starts from a run, or from none"
            raise ConfigError(msg)
        changes[key] = f"{named}/fold-{fold}"
        path = runs / changes[key]
        if not (path / "recipe.json").exists() or RunFolder(path).recipe().folds != folds:
            msg = f"{key} = {named!r} has seen the faces held out: first train --recipe {named} --folds {folds}"
            raise ConfigError(msg)
    return dataclasses.replace(one, **changes)


def _has_not_seen_own(named: str, runs: Path) -> bool:
    """Whether what an `init` names is there, and neither it nor what it came from was trained on own faces."""
    files = {".npz", ".keras"}
    there = (Path(one).suffix in files or (runs / one / "recipe.json").exists() for one in named.split(" + "))
    return all(there) and not has_own_faces(named, runs)
