"""What a SavedModel may compute: arithmetic on tensors. TensorFlow runs every op in one, with the user's rights.

An op can read and write files or open connections (`ReadFile`, `WriteFile`, `RpcCall`, …); loading is enough for some.
The file is therefore read as data first, and only ops of the list below reach TensorFlow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from edge.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ALLOWED: Final = frozenset(
    """
    Const Identity IdentityN NoOp Placeholder PlaceholderWithDefault StopGradient EnsureShape DisableCopyOnRead
    PartitionedCall StatefulPartitionedCall VarHandleOp ReadVariableOp ResourceGather VarIsInitializedOp
    Abs Add AddN AddV2 Sub Mul Div DivNoNan RealDiv FloorDiv FloorMod Neg Sign Square SquaredDifference Sqrt Rsqrt
    Reciprocal Exp Expm1 Log Log1p Pow Erf Maximum Minimum ClipByValue Floor Ceil Round Rint Sin Cos Cast
    Relu Relu6 LeakyRelu Elu Selu Sigmoid Tanh Softplus Softsign Softmax LogSoftmax
    Equal NotEqual Less LessEqual Greater GreaterEqual LogicalAnd LogicalNot LogicalOr Select SelectV2 Where
    Conv2D DepthwiseConv2dNative Conv2DBackpropInput MatMul BatchMatMul BatchMatMulV2 BatchMatMulV3 Einsum BiasAdd
    FusedBatchNorm FusedBatchNormV2 FusedBatchNormV3 LRN L2Loss AvgPool MaxPool MaxPoolV2
    Sum Mean Prod Max Min All Any ArgMax ArgMin TopKV2 Cumsum
    Shape ShapeN Rank Size Reshape Squeeze ExpandDims Transpose Concat ConcatV2 Pack Unpack Split SplitV Slice
    StridedSlice Pad PadV2 MirrorPad Tile Fill Range ZerosLike OnesLike BroadcastTo BroadcastArgs Gather GatherV2
    GatherNd OneHot ReverseV2 ResizeBilinear ResizeNearestNeighbor SpaceToBatchND BatchToSpaceND SpaceToDepth
    DepthToSpace FakeQuantWithMinMaxArgs FakeQuantWithMinMaxVars FakeQuantWithMinMaxVarsPerChannel
    QuantizeAndDequantizeV2 QuantizeAndDequantizeV3 QuantizeAndDequantizeV4
    """.split()  # noqa: SIM905 - 170 quotes would hide the words
)
_UNRUN: Final = ALLOWED | {"AssignVariableOp"}
"""In the outer graph, which a loader of object graphs does not run."""


def check_ops(folder: Path) -> None:
    """Read a SavedModel as data. Raises SourceError when it is none, or holds an op that is not in `ALLOWED`."""
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    for other in ("saved_model.cpb", "saved_model.pbtxt"):
        if (folder / other).exists():
            msg = f"{folder}: not a SavedModel that is read here: {other} would be taken instead of saved_model.pb"
            raise SourceError(msg)
    model = saved_model_pb2.SavedModel()
    try:
        model.ParseFromString((folder / "saved_model.pb").read_bytes())
    except (OSError, DecodeError) as error:
        msg = f"{folder}: not a SavedModel that can be read ({getattr(error, 'strerror', None) or 'damaged'})"
        raise SourceError(msg) from error
    for meta in model.meta_graphs:
        if not meta.HasField("object_graph_def"):
            msg = f"{folder}: a SavedModel of TensorFlow 1, whose loading runs ops: save it with tf.saved_model.save"
            raise SourceError(msg)
        for place, op in _ops(meta):
            if op not in (_UNRUN if place is None else ALLOWED):
                where = f"function {place[:80]!a}" if place else "its graph"
                msg = f"{folder}: {where} runs {op[:80]!a}, no arithmetic of a classifier: refused, nothing was run"
                raise SourceError(msg)


def _ops(meta: Any) -> Iterator[tuple[str | None, str]]:  # noqa: ANN401 - protobuf has no types
    """(function, op) of everything that can run; function None for the outer graph.

    The two functions that save and restore are left out when nothing but the outer graph's own saver names them: a
    loader of object graphs reads the variables by itself.
    """
    savers = {meta.saver_def.save_tensor_name.partition(":")[0], meta.saver_def.restore_op_name}
    named = set(meta.object_graph_def.concrete_functions)
    idle: set[str] = set()
    for node in meta.graph_def.node:
        (idle if node.name in savers else named).update(_called(node))
        yield None, node.op
    for function in meta.graph_def.library.function:
        for node in function.node_def:
            named.update(_called(node))
    for function in meta.graph_def.library.function:
        name = function.signature.name
        if name not in idle or name in named:
            yield from ((name, node.op) for node in function.node_def)


def _called(node: Any) -> set[str]:  # noqa: ANN401
    """Names of the functions that a node may call."""
    lists = (f.name for value in node.attr.values() for f in value.list.func)
    return {value.func.name for value in node.attr.values() if value.HasField("func")} | set(lists)
