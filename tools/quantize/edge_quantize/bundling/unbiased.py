"""What rounding moves in one direction put right in the last bias: counts are sums of answers.

Single answers of an int8 net scatter about the float net's, which a sum forgives. But its mean answer is another one
too, and too much surprise in all faces together is too much in every count. Bias correction (Nagel et al. 2019,
arXiv:1906.04721, section 4.2), at the layer where it is told in answers: the classes' biases are moved until the mean
probabilities are the float net's.
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
_ROUNDS: Final = 60


def to_tflite(model: Any, graph: Any, sample: U8, chips: U8) -> bytes:  # noqa: ANN401 - Keras has no types
    """`convert.to_tflite` of a graph, with the mean answer of the float model.

    Args:
        model: Keras, giving logits. One that does not end in a Dense layer is converted as it is.
        graph: the same layers, made by `convert.fixed`.
        sample: see `convert.to_tflite`.
        chips: uint8 (N, 48, 48) to take the mean answers on, at most `CHIPS` of them.

    Raises:
        BundleError: see `convert.to_tflite`.

    """
    flat = convert.to_tflite(graph, sample)
    last = model.layers[-1]
    if type(last).__name__ != "Dense" or last.activation.__name__ != "linear":
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
    # A probability rounded to 0 is somewhere below half a step.
    logits = np.log(score.probabilities(raw).astype(np.float64) + 0.5 / 256)
    wanted, moved = np.log(np.maximum(exact.mean(axis=0, dtype=np.float64), 1e-6)), np.zeros(raw.shape[1])
    for _ in range(_ROUNDS):
        raised = np.exp(logits + moved)
        answers = raised / raised.sum(axis=1, keepdims=True)
        moved += 0.5 * (wanted - np.log(answers.mean(axis=0)))
    return np.asarray(moved - moved.mean(), np.float32)
