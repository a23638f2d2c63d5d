"""Brings the mean answer of an int8 net back to the float net's, since counts are sums of answers.

Single answers scatter about the float net's, which a sum forgives; but rounding also moves the mean, and too much
surprise in all faces together is too much in every count. Bias correction (Nagel et al. 2019, arXiv:1906.04721,
section 4.2) at the last layer, where it is told in answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edge_quantize.bundling import convert
from edge_quantize.bundling.float_model import predict, softmax
from edge_quantize.evaluation import score

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge.types import F32, U8

CHIPS: Final = 2500
"""Training chips, in the data's own mixture, on which both mean answers are taken."""
_SEED: Final = 0
_HALF: Final = 0.5 / 256
"""Half a step of an answer: what was rounded to 0 has a logarithm then."""
_NEAR: Final = 1e-4
_ROUNDS: Final = 2000
"""Where nearly all answers are sure, a mean moves slowly."""


def to_tflite(model: Any, graph: Any, sample: U8, chips: U8) -> bytes:  # noqa: ANN401 - Keras has no types
    """Quantise a graph as `convert.to_tflite` does, with the float model's mean answer.

    The model's weights are as before afterwards.

    Args:
        model: Keras, (·, 48, 48, 1) → logits (·, K). One that does not end in a Dense layer with a bias and without an
            activation is converted as it is.
        graph: the same layers, made by `convert.fixed`.
        sample: see `convert.to_tflite`.
        chips: uint8 (N, 48, 48) to take the mean answers on, at most `CHIPS` of them.

    Raises:
        BundleError: see `convert.to_tflite`.

    """
    flat = convert.to_tflite(graph, sample)
    last = model.layers[-1]
    if type(last).__name__ != "Dense" or not last.use_bias or getattr(last.activation, "__name__", "") != "linear":
        return flat
    some = chips[np.random.default_rng(_SEED).permutation(len(chips))[:CHIPS]]
    raw = score.outputs(score.open_interpreter(flat), some)
    kernel, bias = last.get_weights()
    last.set_weights([kernel, bias + shift(softmax(predict(model, some)), raw)])
    try:
        return convert.to_tflite(graph, sample)
    finally:
        last.set_weights([kernel, bias])


def shift(exact: F32, raw: NDArray[np.int8]) -> F32:
    """What to add to the logits (K,), 0 in the mean, for int8 answers (N, K) to have the mean of `exact` (N, K)."""
    # Half a step more on both sides alike, or rare classes would shrink.
    logits = np.log(score.probabilities(raw).astype(np.float64) + _HALF)
    wanted = np.log((exact.mean(axis=0, dtype=np.float64) + _HALF) / (1 + _HALF * raw.shape[1]))
    moved = np.zeros(raw.shape[1])
    for _ in range(_ROUNDS):
        raised = np.exp(logits + moved)
        off = wanted - np.log((raised / raised.sum(axis=1, keepdims=True)).mean(axis=0))
        moved += off
        if np.abs(off).max() < _NEAR:
            break
    return np.asarray(moved - moved.mean(), np.float32)
