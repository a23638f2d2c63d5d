"""How much of the Edge TPU's memory a model takes, by the compiler's own padding.

The layout of the parameters was read from real compiled files: convolutions hold whole groups of output channels, input
channels go in fours, a depthwise filter is stored as four (three of them zero). docs/edgetpu.md has the comparison.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from edge_quantize.edgetpu.graph import Graph, Op, Tensor

USABLE: Final = int(7.88 * 2**20)
"""Bytes for parameters when activations take next to none: "remaining" in the compiler's logs with nothing cached."""
LINE: Final = 64
"""Bytes; every block of parameters begins on a multiple."""
TILES: Final = 16
GROUP: Final = 64
"""Output channels of a convolution that go together: 16 tiles of 4."""


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes of one model on the chip."""

    weights: int
    """As the file holds them, biases included."""
    blocks: tuple[int, ...]
    """Weights and biases of each operator that has some, with the compiler's padding."""
    activations: int
    """The most that inputs and outputs of one operator take together: an upper estimate, as large ones are split."""

    @property
    def parameters(self) -> int:
        """All blocks together."""
        return sum(self.blocks)


@dataclass(frozen=True, slots=True)
class Share:
    """Where one model's parameters lie: bytes kept on the chip, and bytes sent at every inference."""

    on_chip: int
    streamed: int


def _padded(n: int, to: int) -> int:
    return -(-n // to) * to


def channel_bytes(tensor: Tensor) -> int:
    """Bytes beside the weights of one output channel: an int32 bias, and a scale where channels have their own."""
    return 8 if tensor.scales > 1 else 4


def parameter_bytes(graph: Graph, op: Op) -> int:
    """Bytes of one operator's weights and biases as the compiler stores them; 0 for one without."""
    place = {"CONV_2D": 1, "DEPTHWISE_CONV_2D": 1, "FULLY_CONNECTED": 1, "TRANSPOSE_CONV": 1}.get(op.name)
    if place is None or len(op.inputs) <= place or op.inputs[place] < 0:
        if "LSTM" in op.name:
            return sum(_matrix(t) for t in graph.given(op) if t.constant and len(t.shape) == 2)
        return 0
    weights = graph.tensors[op.inputs[place]]
    if not weights.constant or len(weights.shape) not in {2, 4}:
        return 0
    if op.name == "DEPTHWISE_CONV_2D":
        _, height, width, channels = weights.shape
        stored = _padded(channels, 4)
        return _padded(stored * (height * width * 4 + channel_bytes(weights)), LINE)
    return _matrix(weights)


def _matrix(weights: Tensor) -> int:
    """Weights of shape (out, …, in)."""
    out, inner = weights.shape[0], weights.shape[1:]
    stored = _padded(out, GROUP if out > GROUP else TILES)
    taps = 1
    for size in inner[:-1]:
        taps *= size
    return stored * (taps * _padded(inner[-1], 4) + channel_bytes(weights))


def measure(graph: Graph, mapped: Collection[int]) -> Need:
    """Memory of the operators that go to the Edge TPU.

    Args:
        graph: the model.
        mapped: indices of its operators on the Edge TPU.

    """
    weights = activations = 0
    blocks = []
    for number in sorted(mapped):
        op = graph.ops[number]
        stored = parameter_bytes(graph, op)
        if stored:
            blocks.append(stored)
            weights += sum(t.nbytes for t in graph.given(op) if t.constant)
        live = {i for i in (*op.inputs, *op.outputs) if i >= 0 and not graph.tensors[i].constant}
        activations = max(activations, sum(graph.tensors[i].nbytes for i in live))
    return Need(weights, tuple(blocks), activations)


def room(needs: Sequence[Need]) -> int:
    """Bytes for parameters that the largest activations leave."""
    return max(USABLE - max((need.activations for need in needs), default=0), 0)


def place(needs: Sequence[Need]) -> list[Share]:
    """Divide the chip's memory among models compiled together, the first served first.

    An operator's parameters are kept whole or streamed whole: of one FULLY_CONNECTED of 64 MiB the compiler caches
    nothing though 7.88 MiB remain.
    """
    left, shares = room(needs), []
    for need in needs:
        kept = 0
        for block in need.blocks:
            if block <= left:
                kept, left = kept + block, left - block
        shares.append(Share(kept, need.parameters - kept))
    return shares
