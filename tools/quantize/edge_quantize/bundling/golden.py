"""Golden answers: chips on which a model must answer as it did when it was bundled.

No photograph of a person goes into a bundle: the chips start as averages of 48 faces and noise, and are moved along the
float model's gradient until it is sure of a class.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edge.errors import BundleError
from edge_quantize.evaluation import score

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from edge.types import U8

PER_CLASS: Final = 5
MARGIN: Final = 16
"""The two best answers differ by at least this many output LSB."""
_AVERAGED: Final = 48
_STEPS: Final = 60
_TRIES: Final = 15
_LOOK: Final = 2
_SHAKES: Final = 4
"""Times that a chip's pixels are moved by a grey level at most, without its answer moving by more than 2 LSB."""


def _start(chips: U8, rng: np.random.Generator) -> NDArray[np.float32]:
    rows = rng.choice(len(chips), min(_AVERAGED, len(chips)), replace=False)
    mean = chips[rows].astype(np.float32).mean(axis=0)
    return np.asarray(np.clip(mean + rng.normal(0, 6, mean.shape), 0, 255), dtype=np.float32)


def _stepper(model: Any) -> Callable[[Any, int], Any]:  # noqa: ANN401
    """Compile one step of a chip (1, 48, 48, 1) towards a class, along the sign of the gradient.

    Goodfellow et al. 2014 (arXiv:1412.6572); 1.2 grey levels a step.
    """
    import tensorflow as tf

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
    def step(chip: Any, wanted: Any) -> Any:  # noqa: ANN401
        with tf.GradientTape() as tape:
            tape.watch(chip)
            answers = model(chip, training=False)
            gain = answers[0, wanted] - tf.reduce_logsumexp(answers, axis=1)[0]
        return tf.clip_by_value(chip + tf.sign(tape.gradient(gain, chip)) * (1.2 / 128.0), -1.0, 127 / 128)

    def run(chip: Any, wanted: int) -> Any:  # noqa: ANN401
        return step(tf.convert_to_tensor(chip, tf.float32), tf.constant(wanted))

    return run


def _to_chip(x: Any) -> U8:  # noqa: ANN401
    grey: U8 = np.clip(np.round(np.asarray(x)[0, :, :, 0] * 128 + 128), 0, 255).astype(np.uint8)
    return grey


def _apart(answer: NDArray[np.int8], others: NDArray[np.int8]) -> int:
    return int(np.abs(others.astype(np.int16) - answer).max())


def make(
    model: Any,  # noqa: ANN401
    flat: bytes,
    chips: U8,
    labels: NDArray[np.integer[Any]],
    classes: int,
    seed: int = 0,
) -> tuple[U8, NDArray[np.int8]]:
    """Find golden chips.

    Args:
        model: the float model, logits of (N, 48, 48, 1).
        flat: its int8 model.
        chips: training chips u8 (N, 48, 48), averaged as starting points.
        labels: their class numbers (N,).
        classes: number of classes K.
        seed: source of chance.

    Returns:
        Chips u8 (5 K, 48, 48) and int8 answers (5 K, K), five a class, the two best at least 16 apart.

    Raises:
        BundleError: a class that the model never answers with that margin.

    """
    rng = np.random.default_rng(seed)
    plain, xnnpack = score.open_interpreter(flat), score.open_interpreter(flat, delegate=True)
    kept_chips: list[U8] = []
    kept_answers: list[NDArray[np.int8]] = []
    step = _stepper(model)
    for wanted in range(classes):
        found = 0
        for _ in range(_TRIES):
            x: Any = (_start(chips[labels == wanted], rng)[None, ..., None] - 128.0) / 128.0
            # As few steps as will do: the less a chip is forced, the more it looks like what the model will see.
            for _ in range(_STEPS // _LOOK):
                for _ in range(_LOOK):
                    x = step(x, wanted)
                chip = _to_chip(x)
                raw = score.outputs(plain, chip[None])[0]
                best = np.sort(raw.astype(np.int16))
                if int(raw.argmax()) != wanted or best[-1] - best[-2] < MARGIN:
                    continue
                # Kernels of another runtime, and those of ARM, round otherwise: a chip on which a rounding
                # shows would test just that.
                shaken = np.clip(chip + rng.integers(-1, 2, (_SHAKES, *chip.shape)), 0, 255).astype(np.uint8)
                if (
                    _apart(raw, score.outputs(xnnpack, chip[None])) <= 1
                    and _apart(raw, score.outputs(plain, shaken)) <= 2
                ):
                    kept_chips.append(chip)
                    kept_answers.append(raw)
                    found += 1
                    break
            if found == PER_CLASS:
                break
        if found < PER_CLASS:
            msg = (
                f"no {PER_CLASS} golden answers for class {wanted}: the model does not answer it surely enough to ship"
            )
            raise BundleError(msg)
    return np.stack(kept_chips), np.stack(kept_answers)
