"""How much of the Edge TPU's memory a model takes, by the compiler's own padding.

The layout of the parameters was read from real compiled files: convolutions hold whole groups of output channels, input
channels go in fours, a depthwise filter is stored as four (three of them zero). Before the weights stand a scale (float
32) for each channel where channels have their own, a bias (int32), and where there is a scale a zero point (int32).
docs/edgetpu.md has the comparison.
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
PIECE: Final = 4
"""Channels that lie together in a tile."""
LONGEST: Final = 1 << 16
"""Bytes of one tile's four output channels from which on weights are never kept, though there is room: 4 × 16,384 are
streamed and their biases kept (pairs: bright), 4 × 1,024 are kept (pairs: yamnet); the limit between is not known,
a count of 16 bits would explain it."""


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes of one model on the chip."""

    weights: int
    """As the file holds them, biases included."""
    blocks: tuple[int, ...]
    """Weights and biases of each operator that has some, with the compiler's padding."""
    activations: int
    """The most that inputs and outputs of one operator take together: an upper estimate, as large ones are split."""
    streamed: int = 0
    """Weights that are sent at every inference however much room there is."""

    @property
    def parameters(self) -> int:
        """All blocks together, and what is streamed in any case."""
        return sum(self.blocks) + self.streamed


@dataclass(frozen=True, slots=True)
class Share:
    """Where one model's parameters lie: bytes kept on the chip, and bytes sent at every inference."""

    on_chip: int
    streamed: int


def _padded(n: int, to: int) -> int:
    return -(-n // to) * to


def parameter_bytes(graph: Graph, op: Op) -> tuple[int, int]:
    """Bytes of one operator's weights, and of the biases, scales and zero points beside them; zeros for one without.

    Without a bias and a scale for each channel there is nothing beside the weights: see `measure`.
    """
    place = {"CONV_2D": 1, "DEPTHWISE_CONV_2D": 1, "FULLY_CONNECTED": 1, "TRANSPOSE_CONV": 1}.get(op.name)
    if place is None or len(op.inputs) <= place or op.inputs[place] < 0:
        if "LSTM" in op.name:
            return sum(_matrix(t) + 4 * _stored(t) for t in graph.given(op) if t.constant and len(t.shape) == 2), 0
        return 0, 0
    weights = graph.tensors[op.inputs[place]]
    if not weights.constant or len(weights.shape) not in {2, 4}:
        return 0, 0
    after = 3 if op.name == "TRANSPOSE_CONV" else 2
    biased = len(op.inputs) > after and op.inputs[after] >= 0
    each = 4 * biased + (8 if weights.scales > 1 else 0)
    if op.name == "DEPTHWISE_CONV_2D":
        _, height, width, channels = weights.shape
        stored = _padded(channels, PIECE)
        held, beside = stored * height * width * PIECE, stored * each
        return held, _padded(held + beside, LINE) - held
    return _matrix(weights), _stored(weights) * each


def _stored(weights: Tensor) -> int:
    """Output channels that weights of shape (out, …, in) take."""
    return _padded(weights.shape[0], GROUP if weights.shape[0] > GROUP else TILES)


def _taps(weights: Tensor) -> int:
    """Bytes of one output channel."""
    taps = _padded(weights.shape[-1], PIECE)
    for size in weights.shape[1:-1]:
        taps *= size
    return taps


def _matrix(weights: Tensor) -> int:
    return _stored(weights) * _taps(weights)


def _streams(graph: Graph, op: Op) -> bool:
    return op.name == "FULLY_CONNECTED" and PIECE * _taps(graph.tensors[op.inputs[1]]) >= LONGEST


def _joints(graph: Graph, op: Op, mapped: Collection[int]) -> list[int]:
    """Filters that put the pieces of a CONCATENATION along z in their places, where these are not whole fours.

    What was split before or is split afterwards is wired otherwise (pairs: split_concat), which is not modelled.
    """
    made = graph.made(op)[0] if op.outputs else None
    if made is None or op.name != "CONCATENATION" or int(op.options.get("axis", 0)) not in {-1, len(made.shape) - 1}:
        return []
    splits = [graph.ops[number] for number in mapped if graph.ops[number].name == "SPLIT"]
    if any(set(op.inputs) & set(split.outputs) or set(op.outputs) & set(split.inputs) for split in splits):
        return []
    pieces = [t.shape[-1] for t in graph.given(op) if not t.constant and t.shape]
    if all(piece % PIECE == 0 for piece in pieces):
        return []
    stored = _padded(sum(pieces), GROUP if sum(pieces) > GROUP else TILES)
    return [stored * _padded(piece, PIECE) for piece in pieces]


def measure(graph: Graph, mapped: Collection[int]) -> Need:
    """Memory of the operators that go to the Edge TPU.

    Args:
        graph: the model.
        mapped: indices of its operators on the Edge TPU.

    """
    weights = activations = streamed = 0
    blocks, zeros = list[int](), set[int]()
    for number in sorted(mapped):
        op = graph.ops[number]
        held, beside = parameter_bytes(graph, op)
        if held:
            streams = _streams(graph, op)
            streamed += held if streams else 0
            blocks += [size for size in (beside + (0 if streams else held),) if size]
            weights += sum(t.nbytes for t in graph.given(op) if t.constant)
            if not beside and "LSTM" not in op.name:
                # Zeros stand for the biases that are missing, once for all operators of one width.
                zeros.add(4 * _stored(graph.tensors[op.inputs[1]]))
        blocks += _joints(graph, op, mapped)
        live = {i for i in (*op.inputs, *op.outputs) if i >= 0 and not graph.tensors[i].constant}
        activations = max(activations, sum(graph.tensors[i].nbytes for i in live))
    return Need(weights, (*blocks, *sorted(zeros)), activations, streamed)


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
