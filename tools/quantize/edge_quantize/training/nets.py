"""The nets as one layer table, and what they cost.

`torch_net.py` builds it in PyTorch, `keras_net.py` in Keras. Both write and read the same neutral weights
(`weights.py`), and a committed golden forward pass holds them equal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

INPUT_SIDE: Final = 48
BN_EPSILON: Final = 1e-3
BN_MOMENTUM: Final = 0.9
"""Share of the old moving statistics kept at each step (PyTorch names the other share: 0.1)."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a layer table.

    `conv`: convolution, batch normalisation, ReLU. `block`: two of those with a shortcut around both
    (He et al. 2016), the second ReLU after the sum, a 1×1 projection where the shape changes. The stride is
    the first convolution's. `bottleneck` (Sandler et al. 2018): 1×1 to `expand` times the channels that come in, a
    depthwise convolution, which has the kernel and the stride, each with ReLU6, and 1×1 to `channels` without; a
    shortcut where the shape stays. Without `expand` the first 1×1 is left out.
    """

    name: str
    kind: Literal["conv", "block", "bottleneck"]
    channels: int
    stride: int = 1
    kernel: int = 3
    expand: int = 1


@dataclass(frozen=True, slots=True)
class Net:
    """Rows, then global average pooling, dropout and one dense layer of `classes` logits.

    Rows `beside` are a second trunk on the same chip; the dense layer sees what both end in, side by side.
    """

    name: str
    rows: tuple[Row, ...]
    classes: int
    dropout: float
    beside: tuple[Row, ...] = ()

    @property
    def trunks(self) -> tuple[tuple[Row, ...], ...]:
        """The rows of each trunk, one or two."""
        return (self.rows, self.beside) if self.beside else (self.rows,)

    @property
    def features(self) -> int:
        """Channels that the dense layer sees."""
        return sum(rows[-1].channels for rows in self.trunks)


def _fer(name: str, stem: tuple[int, int], stages: tuple[tuple[int, int, int], ...]) -> Net:
    """A residual net from (channels, stride) of its stem and (channels, blocks, stride) of its stages."""
    rows = [Row("stem", "conv", *stem)]
    for s, (channels, blocks, stride) in enumerate(stages, 1):
        rows += [Row(f"stage{s}.{b}", "block", channels, stride if b == 0 else 1) for b in range(blocks)]
    return Net(name, tuple(rows), classes=7, dropout=0.3)


BESIDE: Final = "beside."
"""What the names of the second trunk's rows begin with."""

_GATE: Final = (
    Row("conv1", "conv", 16, 2),
    Row("conv2", "conv", 24),
    Row("conv3", "conv", 32, 2),
    Row("conv4", "conv", 48),
    Row("conv5", "conv", 64, 2),
    Row("conv6", "conv", 64),
)


def _lite(name: str) -> Net:
    """EfficientNet-lite0 (Tan and Le 2019) up to its fifth stage, for one grey channel, with strides for 48 pixels."""
    stages = ((16, 1, 1, 3, 1), (24, 2, 2, 3, 6), (40, 2, 1, 5, 6), (80, 3, 2, 3, 6), (112, 3, 1, 5, 6))
    rows = [Row("stem", "conv", 32, 2)]
    for s, (channels, blocks, stride, kernel, expand) in enumerate(stages, 1):
        for b in range(blocks):
            first = stride if b == 0 else 1
            rows.append(Row(f"stage{s}.{b}", "bottleneck", channels, first, kernel, expand))
    return Net(name, (*rows, Row("top", "conv", 256, kernel=1)), classes=7, dropout=0.2)


def _pair(name: str, one: Net, other: Net) -> Net:
    """Two nets on the same chip under one dense layer; the rows of the second get a name before theirs."""
    rows = tuple(replace(row, name=f"{BESIDE}{row.name}") for row in other.rows)
    return replace(one, name=name, beside=rows)


_PLAIN: Final = _fer("fer-cpu", (32, 2), ((48, 1, 1), (96, 2, 2), (208, 2, 2)))
# Sees the picture whole before it shrinks it: more MACs, of which there are plenty, for no more places on the chip.
# Channels in 32s, for which bf16 products are twice as fast.
_FINE: Final = _fer("fer-fine", (32, 1), ((32, 1, 1), (64, 2, 2), (160, 2, 2), (224, 1, 2)))

NETS: Final[Mapping[str, Net]] = {
    net.name: net
    for net in (
        _PLAIN,
        _lite("fer-lite"),
        # Two nets that err apart: what they answer together is worth more than one net of their size.
        _pair("fer-pair", _PLAIN, _lite("fer-lite")),
        _FINE,
        _pair("fer-fine-pair", _FINE, _lite("fer-lite")),
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
    depthwise: bool = False
    """Each channel has a kernel of its own, and sees no other."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of the kernel: height, width, channels in, channels out (1 where depthwise)."""
        return (self.kernel, self.kernel, self.inputs, 1 if self.depthwise else self.outputs)


def convolutions(net: Net) -> list[Convolution]:
    """Every convolution of the net in the order of computation, the shortcut's projection last in a block."""
    return [one for rows in net.trunks for one in _convolutions(rows)]


def _convolutions(rows: tuple[Row, ...]) -> list[Convolution]:
    found: list[Convolution] = []
    inputs, side = 1, INPUT_SIDE
    for row in rows:
        side = -(-side // row.stride)
        if row.kind == "conv":
            found.append(Convolution(row.name, row.kernel, inputs, row.channels, row.stride, side))
        elif row.kind == "bottleneck":
            wide = inputs * row.expand
            if row.expand > 1:
                found.append(Convolution(f"{row.name}.e", 1, inputs, wide, 1, side * row.stride))
            found.append(Convolution(f"{row.name}.d", row.kernel, wide, wide, row.stride, side, depthwise=True))
            found.append(Convolution(f"{row.name}.c", 1, wide, row.channels, 1, side))
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
    body = sum(math.prod(c.shape) + c.outputs for c in convolutions(net))
    return body + net.features * net.classes + net.classes


def count_macs(net: Net) -> int:
    """Multiply-accumulates of one forward pass."""
    body = sum(math.prod(c.shape) * c.side**2 for c in convolutions(net))
    return body + net.features * net.classes
