"""Training by a recipe: one loop for gate and both FER nets, its schedule a share of the time budget."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from edge_quantize.augment import Augment, augment
from edge_quantize.batches import batches
from edge_quantize.data import load_arrays, load_fer2013
from edge_quantize.nets import NETS, build_keras, keras_weights, set_keras_weights
from edge_quantize.recipe import Recipe, load_recipe
from edge_quantize.run_folder import RunFolder, load_all
from edge_quantize.samples import Labelled, Samples, load_samples

from edge.errors import ConfigError, SourceError
from edge.preprocess import to_input

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from edge_quantize.nets import Weights
    from edge_quantize.samples import F32, U8

SAVE_EVERY = 180.0
"""Seconds between checkpoints."""
BN_IMAGES = 4096
"""Chips on which the normalisation statistics of the averaged weights are estimated anew."""


@dataclass(slots=True)
class State:
    """Where a run stands: steps done, seconds spent in training, whether it was asked to stop."""

    step: int = 0
    seconds: float = 0.0
    stopping: bool = False


def probabilities(model: Any, chips: U8, batch: int = 256) -> F32:  # noqa: ANN401
    """Softmax of a logits model on uint8 chips (N, 48, 48): float32 (N, classes)."""
    outputs = [np.asarray(model(to_input(chips[i : i + batch]))) for i in range(0, len(chips), batch)]
    logits = np.concatenate(outputs)
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True), np.float32)


def score(model: Any, labelled: Labelled) -> dict[str, float]:  # noqa: ANN401
    """Accuracy and cross entropy (nats) of a logits model, and n."""
    found = probabilities(model, labelled.chips)
    right = found.argmax(axis=1) == labelled.labels
    loss = -np.log(np.maximum(found[np.arange(len(found)), labelled.labels], 1e-9))
    return {"accuracy": float(right.mean()), "loss": float(loss.mean()), "n": len(found)}


def estimate_normalisation(model: Any, chips: U8, seed: int, batch: int = 128) -> None:  # noqa: ANN401
    """Set every BN layer's statistics to the mean of those of lightly augmented batches."""
    import keras

    layers = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    usual = [layer.momentum for layer in layers]
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(chips))[:BN_IMAGES]
    spec = Augment(rotate=10, scale=(0.9, 1.1), shift=0.05, p_light=0, p_camera=0, p_erase=0)
    for k, start in enumerate(range(0, max(1, len(chosen) - batch + 1), batch)):
        for layer in layers:
            layer.momentum = k / (k + 1)  # makes the moving figure the plain mean so far
        model(to_input(augment(chips[chosen[start : start + batch]], spec, rng)), training=True)
    for layer, momentum in zip(layers, usual, strict=True):
        layer.momentum = momentum


def with_teacher(recipe: Recipe, samples: Samples, runs: Path) -> Samples:
    """Samples whose targets hold the teacher's share: its answer on the same face without a mask.

    Cross entropy against this mixture and the usual sum of cross entropy and KL differ by a constant.
    """
    if recipe.teacher is None or not recipe.teacher_weight:
        return samples
    rows, back = np.unique(samples.row, return_inverse=True)
    if recipe.teacher.endswith(".npz"):
        mean = view_mean(load_arrays(Path(recipe.teacher), ("logits",))["logits"].astype(np.float32))[rows]
    else:
        teacher = load_run(runs / recipe.teacher)
        faces = load_fer2013().images[rows]
        mirrored = np.ascontiguousarray(faces[:, :, ::-1])
        mean = (probabilities(teacher, faces) + probabilities(teacher, mirrored)) / 2
    softened = mean ** (1 / recipe.teacher_temperature)
    answers = softened / softened.sum(axis=1, keepdims=True)
    w = recipe.teacher_weight
    return replace(samples, targets=(1 - w) * samples.targets + w * answers[back])


def view_mean(logits: F32) -> F32:
    """Probabilities float32 (N, classes), the mean over views of softmax(logits (views, N, classes))."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray((shifted / shifted.sum(axis=-1, keepdims=True)).mean(axis=0), np.float32)


def _start_weights(init: str, runs: Path) -> Weights:
    """Neutral weights to start from: a file of them, or those of a finished run."""
    return load_all(Path(init)) if init.endswith(".npz") else RunFolder(runs / init).final_weights()


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


def make_step(recipe: Recipe, model: Any, average: Any) -> Callable[..., Any]:  # noqa: ANN401
    """Compiled training step (x, targets, rate) → (loss, share right): SGD with Nesterov momentum, L2, EMA."""
    import tensorflow as tf

    weights = [v.value for v in model.trainable_variables]
    decay = [recipe.l2 if v.path.endswith("kernel") else 0.0 for v in model.trainable_variables]
    speed = [tf.Variable(tf.zeros_like(w), trainable=False) for w in weights]
    pairs = [
        (a.value, v.value) for a, v in zip(average.variables, model.variables, strict=True) if v.dtype == "float32"
    ]
    count = tf.Variable(0.0, trainable=False)

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
    def step(x: Any, targets: Any, rate: Any) -> Any:  # noqa: ANN401
        with tf.GradientTape() as tape:
            logits = model(x, training=True)
            loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(targets, logits))
        for w, v, g, l2 in zip(weights, speed, tape.gradient(loss, weights), decay, strict=True):
            g = g + l2 * w  # noqa: PLW2901
            v.assign(recipe.momentum * v + g)
            w.assign_sub(rate * (g + recipe.momentum * v))
        count.assign_add(1.0)
        # A young average forgets faster, or it would remember the random start.
        keep = tf.minimum(recipe.ema, (1.0 + count) / (10.0 + count))
        for a, w in pairs:
            a.assign_sub((1.0 - keep) * (a - w))
        right = tf.reduce_mean(tf.cast(tf.argmax(logits, 1) == tf.argmax(targets, 1), tf.float32))
        return loss, right

    compiled: Callable[..., Any] = step
    return compiled


def train(recipe: Recipe, run: RunFolder, masks: Path, *, resume: bool = False) -> dict[str, Any]:
    """Train by a recipe into a run folder and return its result (also `result.json` there).

    SIGTERM and SIGINT save a checkpoint and end the run early; `resume` goes on from the last one. Raises
    SourceError for missing data and ConfigError when there is nothing to resume.
    """
    if recipe.bf16:  # before TensorFlow is imported: bf16 products, fp32 sums, about 15 % faster where known
        os.environ.setdefault("TF_SET_ONEDNN_FPMATH_MODE", "BF16")
    import keras

    keras.utils.set_random_seed(recipe.seed)
    samples = load_samples(recipe, masks)
    net = NETS[recipe.net]
    model, average = build_keras(net), build_keras(net)
    state = State()
    if resume:
        live, averaged, state.step, state.seconds = run.load_checkpoint()
        set_keras_weights(net, model, live)
        set_keras_weights(net, average, averaged)
    else:
        run.start(recipe)
        if recipe.init is not None:
            set_keras_weights(net, model, _start_weights(recipe.init, run.path.parent))
        set_keras_weights(net, average, keras_weights(net, model))
    samples = with_teacher(recipe, samples, run.path.parent)
    _loop(recipe, run, samples, model, average, state)
    if state.stopping:
        return {"stopped_at_step": state.step}
    estimate_normalisation(average, samples.chips, recipe.seed)
    return finish(recipe, run, samples, average, state)


def _loop(
    recipe: Recipe,
    run: RunFolder,
    samples: Samples,
    model: Any,  # noqa: ANN401
    average: Any,  # noqa: ANN401
    state: State,
) -> None:
    import tensorflow as tf

    net = NETS[recipe.net]
    budget = recipe.budget_minutes * 60
    step = make_step(recipe, model, average)
    epoch = max(1, len(samples.chips) // recipe.batch)
    feed = batches(
        samples,
        recipe.batch,
        recipe.seed + state.step,
        lambda: recipe.ranges(state.seconds / budget),
    )

    def save() -> None:
        run.save_checkpoint(keras_weights(net, model), keras_weights(net, average), state.step, state.seconds)

    def ask_to_stop(_signal: int, _frame: object) -> None:
        state.stopping = True

    before = {s: signal.signal(s, ask_to_stop) for s in (signal.SIGTERM, signal.SIGINT)}
    saved = last = time.monotonic()
    sums = np.zeros(3)
    try:
        with run.progress(recipe, state.seconds) as progress:
            while state.seconds < budget and not state.stopping:
                chips, targets = next(feed)
                rate = recipe.rate(state.step, state.seconds / budget)
                loss, right = step(tf.constant(to_input(chips)), tf.constant(targets), tf.constant(rate))
                sums += (float(loss), float(right), 1)
                state.step += 1
                now = time.monotonic()
                state.seconds, last = state.seconds + now - last, now
                progress(state.seconds, state.step, sums[0] / sums[2], rate)
                if state.step % epoch == 0:
                    seen = score(average, samples.validation)
                    run.log(state.step, state.seconds, rate, sums[:2] / sums[2], seen)
                    sums[:] = 0
                    last = time.monotonic()
                if now - saved > SAVE_EVERY:
                    save()
                    saved = last = time.monotonic()
    finally:
        feed.close()
        for number, handler in before.items():
            signal.signal(number, handler)
    save()


def finish(
    recipe: Recipe,
    run: RunFolder,
    samples: Samples,
    model: Any,  # noqa: ANN401
    state: State,
) -> dict[str, Any]:
    """Score the finished model, write weights, `final.keras` and `result.json`; returns the result."""
    run.save_final(keras_weights(NETS[recipe.net], model))
    model.save(run.path / "final.keras")
    scores = {"validation": score(model, samples.validation)}
    scores |= {name: score(model, labelled) for name, labelled in samples.tests.items()}
    result = {"recipe": recipe.name, "steps": state.step, "seconds": round(state.seconds), "scores": scores}
    run.write_result(result)
    return result


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """`edge-quantize train`."""
    parser = subparsers.add_parser("train", help="train one net by a recipe")
    parser.add_argument("--recipe", required=True, help="name in recipes/ or a .toml file")
    parser.add_argument("--budget-minutes", type=float, help="time to train, instead of the recipe's")
    parser.add_argument("--seed", type=int, help="seed, instead of the recipe's")
    parser.add_argument("--resume", action="store_true", help="go on from the run's last checkpoint")
    parser.add_argument("--out", type=Path, help="run folder (build/train/<recipe>)")
    parser.add_argument("--masks", type=Path, default=Path("build/masks"), help="folder of rendered masks")
    parser.set_defaults(func=_command)


def _command(args: argparse.Namespace) -> int:
    recipe = load_recipe(args.recipe)
    changes = {"budget_minutes": args.budget_minutes, "seed": args.seed}
    recipe = dataclasses.replace(recipe, **{k: v for k, v in changes.items() if v is not None})
    if recipe.budget_minutes <= 0:
        msg = f"--budget-minutes must be positive, not {recipe.budget_minutes}"
        raise ConfigError(msg)
    run = RunFolder(args.out or Path("build/train") / recipe.name)
    result = train(recipe, run, args.masks, resume=args.resume)
    print(json.dumps(result, indent=1))
    return 0 if "scores" in result else 1
