"""The nets as one layer table; counting, the Keras builder, and weights under neutral names.

`torch_net.py` builds the same table in PyTorch. Both write and read the same name → array file, and a
committed golden forward pass holds them equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

F32 = NDArray[np.float32]
Weights = dict[str, F32]

INPUT_SIDE: Final = 48
BN_EPSILON: Final = 1e-3
BN_MOMENTUM: Final = 0.9
"""Share of the old moving statistics kept at each step (PyTorch names the other share: 0.1)."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a layer table.

    `conv`: 3×3 convolution, batch normalisation, ReLU. `block`: two of those with a shortcut around both
    (He et al. 2016), the second ReLU after the sum, a 1×1 projection where the shape changes. The stride is
    the first convolution's.
    """

    name: str
    kind: Literal["conv", "block"]
    channels: int
    stride: int = 1


@dataclass(frozen=True, slots=True)
class Net:
    """Rows, then global average pooling, dropout and one dense layer of `classes` logits."""

    name: str
    rows: tuple[Row, ...]
    classes: int
    dropout: float


def _fer(name: str, stem: tuple[int, int], stages: tuple[tuple[int, int, int], ...]) -> Net:
    """A residual net from (channels, stride) of its stem and (channels, blocks, stride) of its stages."""
    rows = [Row("stem", "conv", *stem)]
    for s, (channels, blocks, stride) in enumerate(stages, 1):
        rows += [Row(f"stage{s}.{b}", "block", channels, stride if b == 0 else 1) for b in range(blocks)]
    return Net(name, tuple(rows), classes=7, dropout=0.3)


_GATE: Final = (
    Row("conv1", "conv", 16, 2),
    Row("conv2", "conv", 24),
    Row("conv3", "conv", 32, 2),
    Row("conv4", "conv", 48),
    Row("conv5", "conv", 64, 2),
    Row("conv6", "conv", 64),
)

NETS: Final[Mapping[str, Net]] = {
    net.name: net
    for net in (
        _fer("fer-cpu", (32, 2), ((48, 1, 1), (96, 2, 2), (208, 2, 2))),
        _fer("fer-deep", (32, 2), ((48, 3, 1), (96, 4, 2), (208, 3, 2))),
        _fer("fer-gpu", (32, 1), ((48, 1, 1), (80, 2, 2), (144, 2, 2), (192, 1, 2))),
        _fer("teacher", (64, 1), ((64, 2, 1), (128, 2, 2), (256, 2, 2), (512, 2, 2))),
        Net("gate", _GATE, classes=2, dropout=0.1),
        # A block where the picture is still fine: the one place where 2.7 M MACs cost few parameters.
        Net("gate-deep", (_GATE[0], Row("block1", "block", 16), *_GATE[1:]), classes=2, dropout=0.1),
    )
}


@dataclass(frozen=True, slots=True)
class Convolution:
    """One convolution of a net with its batch normalisation, as `convolutions` lists them."""

    name: str
    kernel: int
    inputs: int
    outputs: int
    stride: int
    side: int
    """Side of the output map in pixels."""


def convolutions(net: Net) -> list[Convolution]:
    """Every convolution of the net in the order of computation, the shortcut's projection last in a block."""
    found: list[Convolution] = []
    inputs, side = 1, INPUT_SIDE
    for row in net.rows:
        side = -(-side // row.stride)
        if row.kind == "conv":
            found.append(Convolution(row.name, 3, inputs, row.channels, row.stride, side))
        else:
            found.append(Convolution(f"{row.name}.a", 3, inputs, row.channels, row.stride, side))
            found.append(Convolution(f"{row.name}.b", 3, row.channels, row.channels, 1, side))
            if projects(inputs, row):
                found.append(Convolution(f"{row.name}.p", 1, inputs, row.channels, row.stride, side))
        inputs = row.channels
    return found


def projects(inputs: int, row: Row) -> bool:
    """Whether a block's shortcut needs a 1×1 projection."""
    return row.stride != 1 or inputs != row.channels


def count_params(net: Net) -> int:
    """Parameters that the deployed net holds: kernels and one bias a channel (normalisation folded in)."""
    body = sum(c.kernel**2 * c.inputs * c.outputs + c.outputs for c in convolutions(net))
    return body + net.rows[-1].channels * net.classes + net.classes


def count_macs(net: Net) -> int:
    """Multiply-accumulates of one forward pass."""
    body = sum(c.kernel**2 * c.inputs * c.outputs * c.side**2 for c in convolutions(net))
    return body + net.rows[-1].channels * net.classes


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

    chips = keras.Input(batch_shape=(batch, INPUT_SIDE, INPUT_SIDE, 1), name="chip")
    x, inputs = chips, 1
    for row in net.rows:
        if row.kind == "conv":
            x = conv(x, row.name, row.channels, row.stride)
        else:
            y = layers.ReLU(name=f"{row.name}.a.relu")(conv(x, f"{row.name}.a", row.channels, row.stride))
            y = conv(y, f"{row.name}.b", row.channels, 1)
            if projects(inputs, row):
                x = conv(x, f"{row.name}.p", row.channels, row.stride, kernel=1)
            x = layers.Add(name=f"{row.name}.add")([x, y])
        x = layers.ReLU(name=f"{row.name}.relu")(x)
        inputs = row.channels
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dropout(net.dropout, name="dropout")(x)
    return keras.Model(chips, layers.Dense(net.classes, name="head")(x), name=net.name)


_BN_PARTS: Final = ("gamma", "beta", "mean", "var")


def weight_shapes(net: Net) -> dict[str, tuple[int, ...]]:
    """Neutral names and shapes: `<conv>/kernel` HWIO, `<conv>/{gamma,beta,mean,var}`, `head/{kernel,bias}`."""
    shapes: dict[str, tuple[int, ...]] = {}
    for c in convolutions(net):
        shapes[f"{c.name}/kernel"] = (c.kernel, c.kernel, c.inputs, c.outputs)
        shapes |= {f"{c.name}/{part}": (c.outputs,) for part in _BN_PARTS}
    shapes["head/kernel"] = (net.rows[-1].channels, net.classes)
    shapes["head/bias"] = (net.classes,)
    return shapes


def keras_weights(net: Net, model: Any) -> Weights:  # noqa: ANN401
    """Weights of a Keras model of this table under neutral names, float32."""
    found: Weights = {}
    for c in convolutions(net):
        found[f"{c.name}/kernel"] = np.asarray(model.get_layer(f"{c.name}.conv").get_weights()[0])
        parts = model.get_layer(f"{c.name}.bn").get_weights()
        found |= {f"{c.name}/{part}": np.asarray(w) for part, w in zip(_BN_PARTS, parts, strict=True)}
    kernel, bias = model.get_layer("head").get_weights()
    return found | {"head/kernel": np.asarray(kernel), "head/bias": np.asarray(bias)}


def set_keras_weights(net: Net, model: Any, weights: Mapping[str, NDArray[np.generic]]) -> None:  # noqa: ANN401
    """Put neutral weights into a Keras model of this table. Raises ValueError where they do not fit it."""
    check_weights(net, weights)
    full = {name: np.asarray(array, np.float32) for name, array in weights.items()}
    for c in convolutions(net):
        model.get_layer(f"{c.name}.conv").set_weights([full[f"{c.name}/kernel"]])
        model.get_layer(f"{c.name}.bn").set_weights([full[f"{c.name}/{part}"] for part in _BN_PARTS])
    model.get_layer("head").set_weights([full["head/kernel"], full["head/bias"]])


def save_keras(net: Net, weights: Mapping[str, NDArray[np.generic]], path: Path) -> None:
    """Write a net as a `.keras` file of logits, which is what conversion reads."""
    model = build_keras(net)
    set_keras_weights(net, model, weights)
    model.save(path)


def check_weights(net: Net, weights: Mapping[str, NDArray[np.generic]]) -> None:
    """Raise ValueError unless names and shapes are exactly those of the table."""
    shapes = weight_shapes(net)
    if missing := sorted(shapes.keys() - weights.keys()):
        msg = f"weights for {net.name} lack {missing[0]} and {len(missing) - 1} more"
        raise ValueError(msg)
    if extra := sorted(weights.keys() - shapes.keys()):
        msg = f"{net.name} has no place for {extra[0]} and {len(extra) - 1} more"
        raise ValueError(msg)
    for name, shape in shapes.items():
        if weights[name].shape != shape:
            msg = f"{net.name} {name}: expected shape {shape}, got {weights[name].shape}"
            raise ValueError(msg)


def seeded_weights(net: Net, seed: int = 0) -> Weights:
    """Weights that anyone can make again, for comparing two builders: float32 under neutral names."""
    rng = np.random.default_rng(seed)
    made: Weights = {}
    for name, shape in weight_shapes(net).items():
        even = rng.random(shape) * 2 - 1
        if name.endswith("kernel"):
            values = even * np.sqrt(6 / np.prod(shape[:-1]))  # He et al. 2015: variance 2 / fan-in
        elif name.endswith(("gamma", "var")):
            values = 1 + 0.5 * even
        else:
            values = 0.2 * even
        made[name] = values.astype(np.float32)
    return made


def deepened(net: Net, weights: Mapping[str, NDArray[np.generic]], seed: int = 0) -> Weights:
    """Weights of `net` from those of a shallower net of the same widths: the blocks it lacks begin as the identity.

    A new block's second normalisation has gain 0, so the net answers as the shallow one did (Goyal et al. 2017,
    "Accurate, large minibatch SGD", 5.1). Raises ValueError where the given weights have no place in `net`.
    """
    rng = np.random.default_rng(seed)
    made: Weights = {}
    for name, shape in weight_shapes(net).items():
        if name in weights:
            made[name] = np.asarray(weights[name], np.float32)
        elif name.endswith("kernel"):
            made[name] = (rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[:-1]))).astype(np.float32)
        else:
            ones = name.endswith("var") or (name.endswith("gamma") and not name.endswith(".b/gamma"))
            made[name] = np.full(shape, float(ones), np.float32)
    check_weights(net, made | {name: np.asarray(array, np.float32) for name, array in weights.items()})
    return made
