"""The training loop: steps until the time budget is spent, validation after each epoch, checkpoints."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from edge.vision.preprocess import to_input
from edge_quantize.progress import training_bar
from edge_quantize.training.augment import Augment, augment
from edge_quantize.training.batches import batches
from edge_quantize.training.nets import NETS, keras_weights
from edge_quantize.training.predict import score
from edge_quantize.training.schedule import Watch

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge_quantize.training.labelled import U8, Samples
    from edge_quantize.training.recipe import Recipe
    from edge_quantize.training.run_folder import RunFolder

SAVE_EVERY = 180.0
"""Seconds between checkpoints."""
BN_IMAGES = 4096
"""Chips on which the normalisation statistics of the averaged weights are estimated anew."""


@dataclass(slots=True)
class State:
    """Where a run stands: steps done, seconds spent in training, what validation said, whether to stop."""

    step: int = 0
    seconds: float = 0.0
    watch: Watch = field(default_factory=Watch)
    stopping: bool = False
    """Asked to stop by a signal."""


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


def run_steps(
    recipe: Recipe,
    run: RunFolder,
    samples: Samples,
    model: Any,  # noqa: ANN401
    average: Any,  # noqa: ANN401
    state: State,
) -> None:
    """Train `model`, and the running `average` of its weights, until the budget, the patience or a signal ends it.

    SIGTERM and SIGINT set `state.stopping`. A checkpoint is written every `SAVE_EVERY` seconds and at the end.
    """
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
    seen: dict[str, float] | None = None
    try:
        with training_bar(recipe.name, budget, state.seconds) as progress:
            while state.seconds < budget and not (state.stopping or state.watch.ended):
                chips, targets = next(feed)
                rate = recipe.rate(state.step, state.seconds / budget, state.watch.falls)
                loss, right = step(tf.constant(to_input(chips)), tf.constant(targets), tf.constant(rate))
                sums += (float(loss), float(right), 1)
                state.step += 1
                now = time.monotonic()
                state.seconds, last = state.seconds + now - last, now
                progress(state.seconds, state.step, sums[0] / sums[2], rate, seen)
                if state.step % epoch == 0:
                    seen = score(average, samples.validation)
                    run.log(state.step, state.seconds, rate, sums[:2] / sums[2], seen)
                    if state.watch.see(recipe, state.seconds, seen["loss"]) and recipe.patience:
                        run.save_best(keras_weights(net, average))
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
