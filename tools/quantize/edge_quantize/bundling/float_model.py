"""A float model from outside: a Keras file or a SavedModel folder, float32 (·, 48, 48, 1) → (·, K)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edge.errors import ConfigError, SourceError
from edge.vision.preprocess import CHIP, to_input
from edge_quantize.bundling.saved_model_ops import check_ops

if TYPE_CHECKING:
    from pathlib import Path

    from edge.types import F32, U8

SIGNATURE: Final = "serving_default"


def load_model(path: Path) -> Any:  # noqa: ANN401 - Keras has no types
    """Load a Keras file or a SavedModel folder; raises what `load_keras` and `load_saved_model` do."""
    return load_saved_model(path) if path.is_dir() else load_keras(path)


def load_saved_model(path: Path) -> Any:  # noqa: ANN401
    """Wrap the `serving_default` signature of a SavedModel: one input float32 (b, 48, 48, 1), one output (b, K).

    The batch size b may be free or 1.

    Raises:
        SourceError: missing, unreadable, or with ops that are no arithmetic (see `saved_model_ops`).
        ConfigError: of another signature.

    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras
    import tensorflow as tf

    check_ops(path)
    try:
        signatures = tf.saved_model.load(str(path)).signatures
    except (OSError, ValueError, RuntimeError) as error:
        msg = f"{path}: not a SavedModel that can be read ({str(error).splitlines()[0]})"
        raise SourceError(msg) from error
    if SIGNATURE not in signatures:
        msg = f"{path}: has signatures {', '.join(signatures) or 'none'}, {SIGNATURE!r} is needed"
        raise ConfigError(msg)
    _, given = signatures[SIGNATURE].structured_input_signature
    answers = list(signatures[SIGNATURE].structured_outputs.values())
    takes, gives = [tuple(t.shape) for t in given.values()], [tuple(t.shape) for t in answers]
    fits = len(takes) == 1 and len(takes[0]) == 4 and takes[0][0] in {None, 1} and takes[0][1:] == (CHIP, CHIP, 1)
    if not fits or len(gives) != 1 or len(gives[0]) != 2 or any(t.dtype != tf.float32 for t in given.values()):
        msg = f"{path}: takes {takes} and gives {gives}; expected one float32 (None, 48, 48, 1) and one (None, classes)"
        raise ConfigError(msg)
    chips = keras.Input(batch_shape=takes[0], name="chip")
    (answer,) = keras.layers.TFSMLayer(str(path), call_endpoint=SIGNATURE)(chips).values()
    return keras.Model(chips, answer)


def load_keras(path: Path) -> Any:  # noqa: ANN401
    """Load a model of the right signature: float32 (·, 48, 48, 1) → (·, K).

    Raises:
        SourceError: missing or unreadable.
        ConfigError: of another signature.

    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    try:
        model = keras.models.load_model(path, compile=False, safe_mode=True)  # no code of the file's
    except (OSError, ValueError) as error:
        msg = f"{path}: not a Keras model that can be read ({str(error).splitlines()[0]})"
        raise SourceError(msg) from error
    shape = getattr(model, "input_shape", None)
    if not isinstance(shape, tuple) or tuple(shape[1:]) != (CHIP, CHIP, 1) or len(model.output_shape) != 2:
        msg = f"{path}: takes {shape} and gives {model.output_shape}; expected (None, 48, 48, 1) and (None, classes)"
        raise ConfigError(msg)
    return model


def ends_in_softmax(model: Any) -> bool:  # noqa: ANN401
    """Tell whether a model already answers with probabilities; a SavedModel, which shows no layers, is asked."""
    last = model.layers[-1]
    if type(last).__name__ == "TFSMLayer":
        chips = np.random.default_rng(0).integers(0, 256, (16, CHIP, CHIP)).astype(np.uint8)
        answers = predict(model, chips)
        return bool(answers.min() >= 0 and np.abs(answers.sum(axis=1) - 1).max() < 1e-3)
    activation = getattr(getattr(last, "activation", None), "__name__", "")
    return type(last).__name__ == "Softmax" or activation == "softmax"


def fold_temperature(model: Any, temperature: float) -> None:  # noqa: ANN401
    """Divide the last Dense layer's weights and bias by the temperature, so that softmax needs none.

    Raises:
        ConfigError: the model does not end in a Dense layer without activation.

    """
    last = model.layers[-1]
    if type(last).__name__ != "Dense" or ends_in_softmax(model):
        msg = f"the last layer is {last.name} ({type(last).__name__}), not a Dense layer that gives logits"
        raise ConfigError(msg)
    last.set_weights([weights / temperature for weights in last.get_weights()])


def with_temperature(model: Any, temperature: float) -> Any:  # noqa: ANN401
    """Divide a model's logits by the temperature: inside its last Dense layer, or after it where there is none."""
    import keras

    if type(model.layers[-1]).__name__ == "Dense" and not ends_in_softmax(model):
        fold_temperature(model, temperature)
        return model
    return keras.Model(model.input, keras.layers.Rescaling(1 / temperature, name="temperature")(model.output))


def predict(model: Any, chips: U8, batch: int = 256) -> F32:  # noqa: ANN401
    """Float outputs (N, K) of uint8 chips (N, 48, 48)."""
    batch = model.input_shape[0] or batch
    parts = [np.asarray(model(to_input(chips[i : i + batch]), training=False)) for i in range(0, len(chips), batch)]
    return np.asarray(np.concatenate(parts), dtype=np.float32)


def softmax(logits: F32) -> F32:
    """Probabilities (N, K) of logits (N, K)."""
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True), dtype=np.float32)


def cost(model: Any) -> tuple[int, int]:  # noqa: ANN401
    """(parameters with batch normalisation folded, multiply-accumulates) of one chip's inference."""
    params = macs = 0
    for layer in model.layers:
        weights = layer.get_weights()
        if type(layer).__name__ in {"Conv2D", "DepthwiseConv2D", "Dense"}:
            kernel = weights[0]
            # Batch normalisation becomes the bias.
            params += kernel.size + layer.output.shape[-1]
            macs += kernel.size * int(np.prod(layer.output.shape[1:-1], dtype=np.int64))
        elif weights and type(layer).__name__ != "BatchNormalization":
            params += sum(w.size for w in weights)
    return int(params), int(macs)
