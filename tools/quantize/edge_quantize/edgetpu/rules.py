"""What the Edge TPU compiler (16.0) says of one operator by itself, in its own words.

Sources: the table "Supported operations" and the model requirements of coral.ai/docs/edgetpu/models-intro (*table*),
compiler logs published in issues of google-coral/edgetpu (*#n*), and the pairs of models and compiled files (*pairs*).
Each rule names its source.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge_quantize.edgetpu.graph import Graph, Op, Tensor

MAPPED: Final = "Mapped to Edge TPU"
SUBGRAPH: Final = "More than one subgraph is not supported"
UNSUPPORTED: Final = "Operation not supported"
VERSION: Final = "Operation version not supported"
DTYPE: Final = "Operation is working on an unsupported data type"
RANK: Final = "Tensor has unsupported rank (up to 3 innermost dimensions mapped)"
LIMIT: Final = "Operation is otherwise supported, but not mapped due to some unspecified limitation"

MAX_SOFTMAX: Final = 16_384
"""The table says 16,000; 1×16384 was mapped (pairs: bright), so it is a round way to say 2 to the 14th."""
MAX_MOVED: Final = 192 << 10
"""Bytes of a RESHAPE, and of a CONCATENATION or LOGISTIC without a y: they are not done in strips of the image.
185,094 map (#515's SSDLite MobileDet), a RESHAPE of 199,920 and a CONCATENATION of 262,395 do not (#512); the limit
between is not known. The table: "certain reshapes might not be mapped for large tensor sizes"."""
MAX_TRANSPOSE: Final = 128 << 10
"""Bytes: 49,980 map (#512), the 150,528 of an image of 224×224 do not (#433); the limit between is not known."""
MAX_MEAN: Final = 16_384
"""Pixels of a MEAN: 64 × 128 map, 256 × 128 do not (#461); the limit between the two is not known."""
MAX_RESIZE_FACTOR: Final = 16
"""A factor of 33 is not mapped (pairs: deeplabv3), 2 is (#31). Steps of 1/factor in x and y need factor² levels of an
8-bit weight: a factor above 16 cannot be exact, which the table calls "avoid loss in precision"."""
SRAM: Final = 8 << 20
INT8: Final = frozenset({"int8", "uint8"})
VERSIONS: Final = {"FULLY_CONNECTED": 4, "RESIZE_BILINEAR": 3, "RESIZE_NEAREST_NEIGHBOR": 3}
"""Newest version that is mapped: FULLY_CONNECTED 5 is keep_num_dims; RESIZE_* 3 is half_pixel_centers (#420, #396:
refused by 15.0, taken by 16.0)."""


class Verdict(NamedTuple):
    """The compiler's words for one operator, and ours for what lies behind them (empty when mapped)."""

    status: str
    why: str


def judge(graph: Graph, op: Op) -> Verdict:
    """What the compiler says of one operator, regardless of the others."""
    if not graph.given(op) or not op.outputs:
        return Verdict(LIMIT, "no input or no output")
    active = [t for t in (*graph.given(op), *graph.made(op)) if not t.constant and not t.variable]
    general = _tensors(op, active)
    if general is not None:
        return general
    rule = RULES.get(op.name)
    if rule is None:
        return Verdict(UNSUPPORTED, "not in the table of supported operations")
    if op.version > VERSIONS.get(op.name, op.version):
        return Verdict(VERSION, f"version {op.version}, {VERSIONS[op.name]} is the newest that maps")
    why = rule(graph, op) or _unquantised(active)
    return Verdict(LIMIT, why) if why else Verdict(MAPPED, "")


def _tensors(op: Op, active: list[Tensor]) -> Verdict | None:
    """Rank before type, as in logs of float models (#708)."""
    for tensor in active:
        if len(tensor.shape) > 3 and math.prod(tensor.shape[:-3]) > 1:
            return Verdict(RANK, f"{_shape(tensor)} (table: only the 3 innermost dimensions may exceed 1)")
    other = next((t.dtype for t in active if t.dtype not in INT8), None)
    if other is not None and op.name == "QUANTIZE":
        # #75, #659 and others: never "unsupported data type"
        return Verdict(LIMIT, f"{other} (table: fully 8-bit quantised models only)")
    return None if other is None else Verdict(DTYPE, f"{other} (table: fully 8-bit quantised models only)")


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "scalar"


def _unquantised(tensors: list[Tensor]) -> str:
    return next((f"{t.name or 'a tensor'} has no scale (table: 8-bit quantised)" for t in tensors if not t.scales), "")


def _axes(tensor: Tensor, axes: tuple[int, ...]) -> list[int]:
    """Axes counted from the innermost: 0 is z (channels), 1 x, 2 y, 3 and more the batch."""
    rank = len(tensor.shape)
    return [rank - 1 - (axis + rank if axis < 0 else axis) for axis in axes]


def _always(_graph: Graph, _op: Op) -> str:
    return ""


def _no_activation(_graph: Graph, op: Op) -> str:
    return "fused activation (table)" if op.options.get("activation", 0) else ""


def _constant_inputs(graph: Graph, op: Op, places: tuple[int, ...], what: str) -> str:
    for place in places:
        if place < len(op.inputs) and op.inputs[place] >= 0 and not graph.tensors[op.inputs[place]].constant:
            return f"{what} are computed (table: constant at compile time)"
    return ""


def _weighted(graph: Graph, op: Op) -> str:
    """CONV_2D, DEPTHWISE_CONV_2D, FULLY_CONNECTED: the table's dilation, format and constants."""
    if op.options.get("dilation_w", 1) != op.options.get("dilation_h", 1):
        return "dilations in x and y differ (table)"
    if op.name == "CONV_2D" and len(op.inputs) > 1 and min(op.inputs[:2]) >= 0:
        given, weights = (graph.tensors[i].shape for i in op.inputs[:2])
        if len(given) == 4 and len(weights) == 4 and given[-1] != weights[-1]:
            return "grouped convolution (#631)"
    if op.name == "FULLY_CONNECTED":
        if op.options.get("weights_format", 0):
            return "shuffled weights (table: default format only)"
        out = graph.made(op)[0]
        if math.prod(out.shape[:-1]) > 1:
            return f"output {_shape(out)} (table: one-dimensional)"
    return _constant_inputs(graph, op, (1, 2), "weights")


def _transpose_conv(graph: Graph, op: Op) -> str:
    return _constant_inputs(graph, op, (0, 1, 3), "weights")


def _concatenation(graph: Graph, op: Op) -> str:
    fixed = [t for t in graph.given(op) if t.constant]
    if fixed and (len(op.inputs) != 2 or any(not _all_zero(t) for t in fixed)):
        return "a constant input that is no zero padding (table)"
    return (
        _no_activation(graph, op) or _batch_axis(graph, op, int(op.options.get("axis", 0))) or _uncut(graph.made(op)[0])
    )


def _all_zero(tensor: Tensor) -> bool:
    values = tensor.content if tensor.dtype == "uint8" or tensor.content is None else tensor.content.view(np.int8)
    return values is not None and bool((values == tensor.zero_point).all())


def _batch_axis(graph: Graph, op: Op, axis: int) -> str:
    """A dimension of 1 is none: SPLIT of a batch of 1 into 1 was mapped though the table forbids it (pairs: yamnet)."""
    made = graph.made(op)[0]
    place = max(_axes(made, (axis,)))
    if place > 2 and (place >= len(made.shape) or made.shape[-1 - place] > 1):
        return "works on the batch dimension (table)"
    return ""


def _uncut(tensor: Tensor) -> str:
    """An image is worked on in strips of y; what has no y must be whole (`MAX_MOVED`)."""
    if math.prod(tensor.shape[:-2]) <= 1 and tensor.size > MAX_MOVED:
        return f"{_shape(tensor)} is {tensor.size:,} bytes in one piece (#210, #512: 185,094 map, 262,395 do not)"
    return ""


def _logistic(graph: Graph, op: Op) -> str:
    return _uncut(graph.made(op)[0])


def _split(graph: Graph, op: Op) -> str:
    where = graph.tensors[op.inputs[0]].integers() if op.inputs and op.inputs[0] >= 0 else None
    return "the axis is computed" if not where else _batch_axis(graph, op, where[0])


def _pack(graph: Graph, op: Op) -> str:
    return _batch_axis(graph, op, int(op.options.get("axis", 0)))


def _reduce(graph: Graph, op: Op) -> str:
    given = graph.given(op)
    where = given[1].integers() if len(given) > 1 else None
    if where is None:
        return "the axes are computed"
    axes = _axes(given[0], where)
    shape = given[0].shape[::-1]
    if any(not 0 <= axis < len(shape) or (axis > 2 and shape[axis] > 1) for axis in axes):
        return "reduces the batch dimension (table)"
    if op.name == "MEAN":
        if 0 in axes and shape[0] % 4:
            return f"reduces z of {shape[0]} (table: a multiple of 4)"
        pixels = math.prod(shape[axis] for axis in axes if axis)
        if pixels > MAX_MEAN:
            return f"mean of {pixels} pixels (#461: 8,192 map, 32,768 do not)"
    return ""


def _pad(graph: Graph, op: Op) -> str:
    given = graph.given(op)
    amounts = given[1].integers() if len(given) > 1 else None
    if amounts is None:
        return "the padding is computed"
    return "pads the batch dimension (table)" if any(amounts[: 2 * max(len(given[0].shape) - 3, 0)]) else ""


def _prelu(graph: Graph, op: Op) -> str:
    given = graph.given(op)
    if len(given) < 2 or math.prod(given[1].shape[:-1]) > 1:
        return "alpha varies over x or y (table: 1-dimensional; Keras: shared_axes=[1, 2])"
    return "" if given[1].constant else "alpha is computed"


def _reshape(graph: Graph, op: Op) -> str:
    given, made = graph.given(op)[0], graph.made(op)[0]
    moved = _inner(given) != _inner(made) and made.size > MAX_MOVED
    if moved:
        return f"{made.size:,} bytes change places (table: not for large tensors; #356, #512: 199,920 do not map)"
    return _constant_inputs(graph, op, (1,), "shape or axes")


def _inner(tensor: Tensor) -> tuple[int, ...]:
    """Shape without the ones before it."""
    return tuple(np.trim_zeros(np.array(tensor.shape) - 1, "f") + 1)


def _tile(graph: Graph, op: Op) -> str:
    """Mapped in a real file though the table does not hold it; a batch of more than 1 is refused by its rank."""
    return _constant_inputs(graph, op, (1,), "multiples")


def _resize(graph: Graph, op: Op) -> str:
    given, made = graph.given(op)[0].shape, graph.made(op)[0].shape
    if len(given) != 4 or len(made) != 4:
        return "no image (table: input and output are 3-dimensional)"
    factor = max(max(made[i], 1) / max(given[i], 1) for i in (1, 2))
    if factor > MAX_RESIZE_FACTOR:
        return f"enlarges {given[1]}×{given[2]} to {made[1]}×{made[2]} (table: not where it would lose precision)"
    if math.prod(made) > SRAM:
        return f"{math.prod(made)} bytes of output are more than the memory on the chip (#31)"
    return _constant_inputs(graph, op, (1,), "sizes")


def _softmax(graph: Graph, op: Op) -> str:
    shape = graph.made(op)[0].shape
    if math.prod(shape[:-1]) > 1 or shape[-1:] > (MAX_SOFTMAX,):
        return f"{'×'.join(map(str, shape))} (table: 1-dimensional, at most {MAX_SOFTMAX:,} elements)"
    return ""


def _strided_slice(graph: Graph, op: Op) -> str:
    if op.options.get("ellipsis_mask", 0) or op.options.get("new_axis_mask", 0):
        return "ellipsis or new axis (table)"
    given = graph.given(op)
    steps = given[3].integers() if len(given) > 3 else None
    if steps is None or any(step != 1 for step in steps):
        return "strides other than 1 (table)"
    return _constant_inputs(graph, op, (1, 2), "bounds")


def _slice(graph: Graph, op: Op) -> str:
    return _constant_inputs(graph, op, (1, 2), "bounds")


def _transpose(graph: Graph, op: Op) -> str:
    given = graph.given(op)
    order = given[1].integers() if len(given) > 1 else None
    if order is None:
        return "the order is computed"
    if given[0].size > MAX_TRANSPOSE and order != tuple(range(len(order))):
        return f"{given[0].size:,} bytes change places (#433: 150,528 do not map)"
    moved = len(order) > 3 and order[0] != 0 and math.prod(given[0].shape[: len(order) - 3]) > 1
    return "moves the batch dimension" if moved else ""


RULES: Final[dict[str, Callable[[Graph, Op], str]]] = {
    **dict.fromkeys(("ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM", "SQUARED_DIFFERENCE", "RSQRT"), _always),
    **dict.fromkeys(
        ("RELU", "RELU6", "RELU_N1_TO_1", "TANH", "L2_NORMALIZATION", "QUANTIZE", "SPACE_TO_DEPTH"), _always
    ),
    **dict.fromkeys(("LSTM", "UNIDIRECTIONAL_SEQUENCE_LSTM"), _always),
    **dict.fromkeys(("AVERAGE_POOL_2D", "MAX_POOL_2D"), _no_activation),
    **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"), _weighted),
    **dict.fromkeys(("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN"), _reduce),
    **dict.fromkeys(("RESHAPE", "SQUEEZE", "EXPAND_DIMS"), _reshape),
    **dict.fromkeys(("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"), _resize),
    "CONCATENATION": _concatenation,
    "LOGISTIC": _logistic,
    "PACK": _pack,
    "PAD": _pad,
    "PRELU": _prelu,
    "SLICE": _slice,
    "SOFTMAX": _softmax,
    "SPLIT": _split,
    "STRIDED_SLICE": _strided_slice,
    "TILE": _tile,
    "TRANSPOSE": _transpose,
    "TRANSPOSE_CONV": _transpose_conv,
}
