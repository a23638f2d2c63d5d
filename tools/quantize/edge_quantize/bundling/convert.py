"""Keras to full int8: batch fixed at 1, softmax inside, int8 in and out, input scale exactly 1/128.

Post-training quantisation after Jacob et al. 2018 (arXiv:1712.05877) as TensorFlow Lite does it: weights per output
channel, activations per tensor from a representative set.
"""

from __future__ import annotations

import io
import warnings
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edge.errors import BundleError
from edge.vision.preprocess import CHIP, to_input
from edge_quantize.bundling import quant_error
from edge_quantize.bundling.float_model import ends_in_softmax, predict
from edge_quantize.evaluation import metrics, score

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from edge.types import F32, U8
    from edge_quantize.bundling.quant_error import LayerError

INPUT_SCALE: Final = 1 / 128
OUTPUT_SCALE: Final = 1 / 256
_FIXED: Final = "fixed"
MAX_LOSS: Final = 0.5
"""Points of accuracy that int8 may lose against float on the same images."""


@dataclass(frozen=True, slots=True)
class Paired:
    """Float and int8 answers to the same chips."""

    float_accuracy: float
    int8_accuracy: float
    agreement: float
    """Share of chips with the same answer."""
    ties: float
    """Share of chips whose two best int8 answers are equal."""
    p: float
    """McNemar's p."""
    n: int

    @property
    def loss(self) -> float:
        """Points lost by quantisation."""
        return 100 * (self.float_accuracy - self.int8_accuracy)

    def as_json(self) -> dict[str, Any]:
        """As the manifest keeps it."""
        return {"float_accuracy": round(self.float_accuracy, 5), "int8_accuracy": round(self.int8_accuracy, 5),
                "loss_points": round(self.loss, 3), "agreement": round(self.agreement, 5),
                "ties": round(self.ties, 5), "mcnemar_p": round(self.p, 4), "n": self.n}  # fmt: skip


def representative(chips: U8, labels: NDArray[np.integer[Any]], seed: int = 0, size: int = 500) -> U8:
    """Class-balanced sample of chips, then one all 0 and one all 255, which pin the input's range."""
    rng = np.random.default_rng(seed)
    classes = np.unique(labels)
    each = -(-size // len(classes))
    rows = np.concatenate([rng.choice(np.flatnonzero(labels == k), each) for k in classes])[:size]
    pins = np.stack([np.zeros((CHIP, CHIP), np.uint8), np.full((CHIP, CHIP), 255, np.uint8)])
    return np.concatenate([chips[rows], pins])


def fixed(model: Any) -> Any:  # noqa: ANN401 - Keras has no types
    """A model as it is converted: batch 1, ending in a softmax; one that is so already is returned as it is.

    A free batch dimension would add SHAPE, STRIDED_SLICE and PACK, which do not map to an Edge TPU.
    """
    import keras

    if model.name == _FIXED:
        return model
    inputs = keras.Input(batch_shape=(1, CHIP, CHIP, 1), name="chip")
    answer = model(inputs, training=False)
    if not ends_in_softmax(model):
        answer = keras.layers.Softmax(name="probabilities")(answer)
    return keras.Model(inputs, answer, name=_FIXED)


def _run(converter: Any) -> bytes:  # noqa: ANN401
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), warnings.catch_warnings():
        # It speaks of statistics that post-training quantisation gathers from the representative set.
        warnings.filterwarnings("ignore", message="Statistics for quantized inputs")
        return bytes(converter.convert())


def to_float_tflite(model: Any) -> bytes:  # noqa: ANN401
    """The same graph as `to_tflite` makes, in float32: what its layers are compared with."""
    import tensorflow as tf

    return _run(tf.lite.TFLiteConverter.from_keras_model(fixed(model)))


def to_tflite(model: Any, sample: U8) -> bytes:  # noqa: ANN401
    """Quantise a model.

    Args:
        model: Keras, (·, 48, 48, 1) → logits or probabilities.
        sample: representative uint8 chips (N, 48, 48), see `representative`.

    Raises:
        BundleError: the result has another input or output quantisation than `gray48/1` asks for.

    """
    flat = to_int8_tflite(fixed(model), [to_input(chip[None]) for chip in sample])
    check_quantisation(flat)
    return flat


def to_int8_tflite(model: Any, inputs: Sequence[F32]) -> bytes:  # noqa: ANN401
    """Full int8 of a model of fixed batch 1; ranges of activations are taken from its float `inputs`."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([one] for one in inputs)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.int8
    converter.inference_output_type = tf.int8
    return _run(converter)


def check_quantisation(flat: bytes | Path) -> None:
    """Refuse a model whose input is not int8 at 1/128 and 0, or whose output is not int8 at 1/256 and -128.

    Raises:
        BundleError: saying what it is instead.

    """
    given, answer = score.quantisation(score.open_interpreter(flat))
    if (given["dtype"], given["scale"], given["zero_point"]) != ("int8", INPUT_SCALE, 0):
        msg = (
            f"the model's input is {given['dtype']} with scale {given['scale']!r} and zero point {given['zero_point']}"
            ", not int8, 0.0078125 and 0: the representative set must hold an all-0 and an all-255 chip"
        )
        raise BundleError(msg)
    if (answer["dtype"], answer["scale"], answer["zero_point"]) != ("int8", OUTPUT_SCALE, -128):
        msg = f"the model's output is {answer}, not int8 with scale 0.00390625 and zero point -128: end it in a softmax"
        raise BundleError(msg)


def compare(model: Any, flat: bytes, chips: U8, labels: NDArray[np.integer[Any]]) -> Paired:  # noqa: ANN401
    """Answer the same chips with the float and the int8 model."""
    exact = predict(model, chips).argmax(axis=1)
    raw = score.outputs(score.open_interpreter(flat), chips)
    coarse = raw.argmax(axis=1)
    best = np.sort(raw, axis=1)
    return Paired(
        float_accuracy=float((exact == labels).mean()),
        int8_accuracy=float((coarse == labels).mean()),
        agreement=float((exact == coarse).mean()),
        ties=float((best[:, -1] == best[:, -2]).mean()),
        p=metrics.mcnemar(exact == labels, coarse == labels),
        n=len(chips),
    )


def layer_errors(model: Any, flat: bytes, chips: U8, size: int = 100) -> list[LayerError]:  # noqa: ANN401
    """Measure each layer's quantisation error on `size` of the chips, evenly spread; see `quant_error.measure`.

    `model` must be the very graph, made by `fixed`, that `flat` was converted from: tensors are paired by name, and
    another call of the same layers names them otherwise. What `unbiased` moved the last bias by counts as that layer's
    error.
    """
    spread = chips[:: max(1, len(chips) // size)][:size]
    return quant_error.measure(to_float_tflite(model), flat, spread)


def refuse_loss(paired: Paired, name: str, bound: float = MAX_LOSS, layers: Sequence[LayerError] = ()) -> None:
    """Refuse a quantised model that lost too much, by the name of the layer that adds most error.

    Raises:
        BundleError: int8 lost more than `bound` points against float on the same images.

    """
    if paired.loss > bound:
        where = f"; layer {worst.name} ({worst}) adds most" if (worst := quant_error.worst(layers)) else ""
        msg = (
            f"{name}: int8 scores {paired.int8_accuracy:.2%}, float {paired.float_accuracy:.2%} on the same {paired.n} "
            f"images: {paired.loss:.2f} points lost, {bound} allowed (--max-loss){where}: train it quantisation-aware"
        )
        raise BundleError(msg)
