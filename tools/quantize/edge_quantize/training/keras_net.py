"""The layer table built in Keras, which is what conversion to int8 reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edge.errors import SourceError
from edge_quantize.training.nets import BN_EPSILON, BN_MOMENTUM, INPUT_SIDE, NETS, convolutions, projects
from edge_quantize.training.weights import BN_PARTS, check_weights

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from edge_quantize.training.nets import Net, Row
    from edge_quantize.training.weights import Weights


def build_keras(net: Net, batch: int | None = None) -> Any:  # noqa: ANN401 - keras ships no types
    """Keras model of a layer table: float32 (batch, 48, 48, 1) → logits float32 (batch, classes).

    `batch=1` fixes the batch, as conversion needs it.
    """
    import keras

    layers = keras.layers

    def conv(x: Any, name: str, channels: int, stride: int, kernel: int = 3) -> Any:  # noqa: ANN401
        x = layers.Conv2D(
            channels,
            kernel,
            strides=stride,
            padding="same",
            use_bias=False,
            kernel_initializer="he_normal",
            name=f"{name}.conv",
        )(x)
        return layers.BatchNormalization(momentum=BN_MOMENTUM, epsilon=BN_EPSILON, name=f"{name}.bn")(x)

    def bottleneck(x: Any, row: Row, inputs: int) -> Any:  # noqa: ANN401
        y = x
        if row.expand > 1:
            y = layers.ReLU(6.0, name=f"{row.name}.e.relu")(conv(y, f"{row.name}.e", inputs * row.expand, 1, kernel=1))
        deep = layers.DepthwiseConv2D(
            row.kernel,
            strides=row.stride,
            padding="same",
            use_bias=False,
            depthwise_initializer="he_normal",
            name=f"{row.name}.d.conv",
        )(y)
        y = layers.BatchNormalization(momentum=BN_MOMENTUM, epsilon=BN_EPSILON, name=f"{row.name}.d.bn")(deep)
        y = conv(layers.ReLU(6.0, name=f"{row.name}.d.relu")(y), f"{row.name}.c", row.channels, 1, kernel=1)
        return y if projects(inputs, row) else layers.Add(name=f"{row.name}.add")([x, y])

    def block(x: Any, row: Row, inputs: int) -> Any:  # noqa: ANN401
        y = layers.ReLU(name=f"{row.name}.a.relu")(conv(x, f"{row.name}.a", row.channels, row.stride))
        y = conv(y, f"{row.name}.b", row.channels, 1)
        if projects(inputs, row):
            x = conv(x, f"{row.name}.p", row.channels, row.stride, kernel=1)
        return layers.ReLU(name=f"{row.name}.relu")(layers.Add(name=f"{row.name}.add")([x, y]))

    def trunk(x: Any, rows: tuple[Row, ...], pool: str) -> Any:  # noqa: ANN401
        inputs = 1
        for row in rows:
            if row.kind == "conv":
                x = conv(x, row.name, row.channels, row.stride, row.kernel)
                x = layers.ReLU(name=f"{row.name}.relu")(x)
            else:
                x = (block if row.kind == "block" else bottleneck)(x, row, inputs)
            inputs = row.channels
        return layers.GlobalAveragePooling2D(name=pool)(x)

    chips = keras.Input(batch_shape=(batch, INPUT_SIDE, INPUT_SIDE, 1), name="chip")
    x = trunk(chips, net.rows, "pool")
    if net.beside:
        x = layers.Concatenate(name="both")([x, trunk(chips, net.beside, "pool.beside")])
    x = layers.Dropout(net.dropout, name="dropout")(x)
    return keras.Model(chips, layers.Dense(net.classes, name="head")(x), name=net.name)


def keras_weights(net: Net, model: Any) -> Weights:  # noqa: ANN401
    """Weights of a Keras model of this table under neutral names, float32."""
    found: Weights = {}
    for c in convolutions(net):
        found[f"{c.name}/kernel"] = np.asarray(model.get_layer(f"{c.name}.conv").get_weights()[0])
        parts = model.get_layer(f"{c.name}.bn").get_weights()
        found |= {f"{c.name}/{part}": np.asarray(w) for part, w in zip(BN_PARTS, parts, strict=True)}
    kernel, bias = model.get_layer("head").get_weights()
    return found | {"head/kernel": np.asarray(kernel), "head/bias": np.asarray(bias)}


def set_keras_weights(net: Net, model: Any, weights: Mapping[str, NDArray[np.generic]]) -> None:  # noqa: ANN401
    """Put neutral weights into a Keras model of this table. Raises ValueError where they do not fit it."""
    check_weights(net, weights)
    full = {name: np.asarray(array, np.float32) for name, array in weights.items()}
    for c in convolutions(net):
        model.get_layer(f"{c.name}.conv").set_weights([full[f"{c.name}/kernel"]])
        model.get_layer(f"{c.name}.bn").set_weights([full[f"{c.name}/{part}"] for part in BN_PARTS])
    model.get_layer("head").set_weights([full["head/kernel"], full["head/bias"]])


def load_keras(path: Path) -> Weights:
    """Neutral weights of a net of the table in a `.keras` file, as `save_keras` or a bundle has it.

    Raises SourceError where there is none.
    """
    import keras

    try:
        model = keras.models.load_model(path, compile=False, safe_mode=True)
        return keras_weights(NETS[model.name], model)
    except (OSError, ValueError, KeyError) as error:
        msg = f"{path} is no net of edge_quantize.training.nets: {error}"
        raise SourceError(msg) from error


def save_keras(net: Net, weights: Mapping[str, NDArray[np.generic]], path: Path) -> None:
    """Write a net as a `.keras` file of logits, which is what conversion reads."""
    model = build_keras(net)
    set_keras_weights(net, model, weights)
    model.save(path)
