"""Models that the Edge TPU compiler (16.0) does not compile at all, whatever else they hold.

It first loads a model into its own TensorFlow Lite (2.5) and prepares every operator, as any interpreter does. What
fails there is said in that interpreter's words, and none of the model is mapped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from edge_quantize.edgetpu.graph import Graph, Op

REGISTERED: Final = {
    "CONV_2D": (5, "#631: use plain, ungrouped convolutions"),
    "TRANSPOSE_CONV": (3, "#845: a fused activation is version 4"),
    "QUANTIZE": (2, "#879"),
    "EXP": (1, "google-coral/libedgetpu#71"),
    # Not told by a log, but newer than TensorFlow Lite 2.7's own tables (`lite/kernels/register.cc`).
    **{
        name: (newest, "TensorFlow Lite 2.7 has no newer one")
        for name, newest in {
            "FULLY_CONNECTED": 9, "DEPTHWISE_CONV_2D": 6, "ADD": 4, "SUB": 5, "MUL": 5, "BATCH_MATMUL": 4, "SLICE": 5,
            "STRIDED_SLICE": 6, "CAST": 4, "SOFTMAX": 3, "LOGISTIC": 3, "MEAN": 3, "PAD": 4, "CONCATENATION": 3,
        }.items()
    },
}  # fmt: skip
"""Newest version the compiler reads at all, and where that is told."""
ALWAYS_DYNAMIC: Final = frozenset({"WHERE", "UNIQUE"})
"""How much these make is known from the values only."""
SHAPED_BY: Final[dict[str, tuple[int, ...]]] = {
    **dict.fromkeys(("RESHAPE", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "TILE", "BROADCAST_TO"), (1,)),
    **dict.fromkeys(("PAD", "PADV2", "MIRROR_PAD", "TRANSPOSE", "EXPAND_DIMS", "TOPK_V2", "ARG_MAX", "ARG_MIN"), (1,)),
    **dict.fromkeys(
        ("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD", "REDUCE_ANY", "ONE_HOT", "SPARSE_TO_DENSE"), (1,)
    ),
    **dict.fromkeys(("SLICE", "SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND", "SPLIT_V"), (1, 2)),
    **dict.fromkeys(("FILL", "SPLIT", "TRANSPOSE_CONV"), (0,)),
    **dict.fromkeys(("STRIDED_SLICE",), (1, 2, 3)),
    **dict.fromkeys(("RANGE",), (0, 1, 2)),
    "SCATTER_ND": (2,),
}
"""Inputs whose *values* decide the shape of what an operator makes. Unless the file holds them, TensorFlow Lite
2.5 sets the output to dynamic when it prepares the operator (`lite/kernels/*.cc`, `SetTensorToDynamic`)."""


def refusal(graph: Graph) -> str | None:
    """Why the compiler does not compile the model; None when it does, in part at least."""
    return _unregistered(graph) or _flex(graph) or _dynamic(graph)


def _unregistered(graph: Graph) -> str | None:
    for op in graph.ops:
        newest, told = REGISTERED.get(op.name, (op.version, ""))
        if op.version > newest:
            return (
                f"Didn't find op for builtin opcode '{op.name}' version '{op.version}' ({told}; {newest} is the "
                "newest: convert with an older TensorFlow)"
            )
    return None


def _flex(graph: Graph) -> str | None:
    found = next((op for op in graph.ops if op.name.startswith("CUSTOM:Flex")), None)
    if found is None:
        return None
    return (
        f"Regular TensorFlow ops are not supported by this interpreter: {found.name.partition(':')[2]} (#718: convert "
        "with TFLITE_BUILTINS_INT8 only)"
    )


def _dynamic(graph: Graph) -> str | None:
    """A dynamic tensor anywhere, also behind the last operator that could be mapped, refuses the whole file."""
    for number, op in enumerate(graph.ops):
        what = _shape_from(graph, op)
        if what is not None:
            return (
                "Attempting to use a delegate that only supports static-sized tensors with a graph that has "
                f"dynamic-sized tensors: {op.name} (operator {number}) takes its shape from {what} (#586, #654, #829: "
                "convert with a fixed batch of 1, and with shapes written into the model)"
            )
    return None


def _shape_from(graph: Graph, op: Op) -> str | None:
    if op.name in ALWAYS_DYNAMIC:
        return "the values it is given"
    for place in SHAPED_BY.get(op.name, ()):
        index = op.inputs[place] if place < len(op.inputs) else -1
        if index >= 0 and not graph.tensors[index].constant:
            return f"{graph.tensors[index].name or 'a tensor'}, which is computed"
    return None
