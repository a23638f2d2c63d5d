"""The documented rules, one by one, and how what is left to the CPU cuts a graph."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from edge_quantize.edgetpu.checker import check
from edge_quantize.edgetpu.graph import Graph, Op, Tensor
from edge_quantize.edgetpu.rules import DTYPE, LIMIT, MAPPED, RANK, SUBGRAPH, UNSUPPORTED, VERSION

from edge.bundle.flatbuffer import Table

Shape = tuple[int, ...]
IMAGE: Shape = (1, 8, 8, 16)


def tensor(shape: Shape, dtype: str = "int8", values: list[int] | None = None) -> Tensor:
    """An activation, or a constant of `values` (zeros with an empty list)."""
    content = None
    if values is not None:
        kept = np.array(values or np.zeros(shape), np.int32 if dtype == "int32" else np.int8)
        content = np.frombuffer(kept.tobytes(), np.uint8)
    return Tensor("t", shape, dtype, 0 if dtype == "int32" else 1, 0.1, 0, content, variable=False, offset=0)


def integers(*values: int) -> Tensor:
    return tensor((len(values),), "int32", list(values))


def weights(*shape: int) -> Tensor:
    return tensor(shape, values=[])


def alone(
    name: str, given: list[Tensor], made: Tensor, options: dict[str, int] | None = None, version: int = 1
) -> tuple[str, str]:
    """What is said of one operator by itself: the compiler's words and ours."""
    tensors = (*given, made)
    table = Table(options or {})
    places = tuple(range(len(given)))
    op = Op(name, version, places, (len(given),), table, np.zeros(0, np.uint8), 0)
    (finding,) = check(Graph(tensors, (op,), places, (len(given),))).findings
    return finding.status, finding.why


X = tensor(IMAGE)
FLAT = tensor((1, 16))
DENSE = [FLAT, weights(10, 16), integers(*range(10))]
TEN = tensor((1, 10))


@pytest.mark.parametrize(
    ("name", "given", "made", "options", "version", "status"),
    [
        ("FULLY_CONNECTED", DENSE, TEN, {}, 4, MAPPED),
        ("FULLY_CONNECTED", DENSE, TEN, {"keep_num_dims": 1}, 5, VERSION),
        ("FULLY_CONNECTED", DENSE, TEN, {"weights_format": 1}, 2, LIMIT),
        ("FULLY_CONNECTED", [tensor((4, 16)), *DENSE[1:]], tensor((4, 10)), {}, 4, LIMIT),
        ("FULLY_CONNECTED", [FLAT, tensor((10, 16))], TEN, {}, 4, LIMIT),
        ("CONV_2D", [X, weights(8, 3, 3, 16)], tensor((1, 8, 8, 8)), {}, 3, MAPPED),
        ("CONV_2D", [X, weights(8, 3, 3, 16)], X, {"dilation_w": 2, "dilation_h": 1}, 3, LIMIT),
        ("CONV_2D", [X, weights(8, 3, 3, 4)], tensor((1, 8, 8, 8)), {}, 5, LIMIT),
        ("MAX_POOL_2D", [X], X, {}, 2, MAPPED),
        ("MAX_POOL_2D", [X], X, {"activation": 1}, 2, LIMIT),
        ("LOGISTIC", [X], X, {}, 2, MAPPED),
        ("MUL", [X, X], X, {}, 2, MAPPED),
        *((name, [X], X, {}, 1, UNSUPPORTED) for name in ("HARD_SWISH", "LEAKY_RELU", "GELU", "ELU", "DIV")),
        ("PRELU", [X, weights(1, 1, 16)], X, {}, 1, MAPPED),
        ("PRELU", [X, weights(8, 8, 16)], X, {}, 1, LIMIT),
        ("MEAN", [X, integers(1, 2)], FLAT, {}, 2, MAPPED),
        ("MEAN", [X, integers(3)], tensor((1, 8, 8)), {}, 2, MAPPED),
        ("MEAN", [tensor((1, 8, 8, 6)), integers(-1)], tensor((1, 8, 8)), {}, 2, LIMIT),
        ("MEAN", [X, integers(0)], X, {}, 2, MAPPED),
        ("MEAN", [X, tensor((2,), "int32")], FLAT, {}, 2, DTYPE),
        ("SOFTMAX", [tensor((1, 7))], tensor((1, 7)), {}, 2, MAPPED),
        ("SOFTMAX", [X], X, {}, 2, LIMIT),
        ("SOFTMAX", [tensor((1, 16_384))], tensor((1, 16_384)), {}, 2, MAPPED),
        ("SOFTMAX", [tensor((1, 16_385))], tensor((1, 16_385)), {}, 2, LIMIT),
        ("SPLIT", [integers(0), tensor((1, 96, 64, 1))], tensor((1, 96, 64, 1)), {}, 2, MAPPED),
        ("LOGISTIC", [tensor((1, 1917, 91))], tensor((1, 1917, 91)), {}, 2, MAPPED),
        ("LOGISTIC", [tensor((1, 12_804, 91))], tensor((1, 12_804, 91)), {}, 2, LIMIT),
        ("RESHAPE", [tensor((1, 28, 28, 255)), integers(1, 784, 3, 85)], tensor((1, 784, 3, 85)), {}, 1, LIMIT),
        ("DEQUANTIZE", [FLAT], tensor((1, 16), "float32"), {}, 2, DTYPE),
        ("ARG_MAX", [FLAT, integers(1)], tensor((1,), "int64"), {}, 1, DTYPE),
        ("CAST", [FLAT], tensor((1, 16), "int32"), {}, 1, DTYPE),
        ("QUANTIZE", [tensor(IMAGE, "float32")], X, {}, 1, LIMIT),
        ("QUANTIZE", [tensor(IMAGE, "uint8")], X, {}, 1, MAPPED),
        ("CONCATENATION", [X, X], tensor((1, 8, 8, 32)), {"axis": 3}, 2, MAPPED),
        ("CONCATENATION", [X, weights(*IMAGE)], tensor((1, 8, 8, 32)), {"axis": 3}, 2, MAPPED),
        ("CONCATENATION", [X, X, weights(*IMAGE)], tensor((1, 8, 8, 48)), {"axis": 3}, 2, LIMIT),
        ("CONCATENATION", [X, X], tensor((1, 8, 8, 32)), {"axis": 3, "activation": 1}, 2, LIMIT),
        ("ADD", [tensor((2, 8, 8, 16))] * 2, tensor((2, 8, 8, 16)), {}, 2, RANK),
        ("PAD", [X, integers(0, 0, 1, 1, 1, 1, 0, 0)], tensor((1, 10, 10, 16)), {}, 2, MAPPED),
        ("PAD", [X, integers(1, 0, 0, 0, 0, 0, 0, 0)], tensor((1, 8, 8, 16)), {}, 2, LIMIT),
        ("RESIZE_BILINEAR", [X, integers(16, 16)], tensor((1, 16, 16, 16)), {}, 3, MAPPED),
        ("RESIZE_BILINEAR", [tensor((1, 1, 1, 16)), integers(33, 33)], tensor((1, 33, 33, 16)), {}, 3, LIMIT),
        ("STRIDED_SLICE", [X, *[integers(0, 0, 0, 0)] * 2, integers(1, 1, 1, 1)], X, {}, 2, MAPPED),
        ("STRIDED_SLICE", [X, *[integers(0, 0, 0, 0)] * 2, integers(1, 2, 2, 1)], X, {}, 2, LIMIT),
        ("TILE", [X, integers(1, 2, 2, 1)], tensor((1, 16, 16, 16)), {}, 3, MAPPED),
    ],
)
def test_one_operator_alone(
    name: str, given: list[Tensor], made: Tensor, options: dict[str, int], version: int, status: str
) -> None:
    said, why = alone(name, given, made, options, version)
    assert said == status
    assert bool(why) == (status != MAPPED), "what is left to the CPU has a reason"


def graph(*ops: tuple[str, tuple[int, ...], int]) -> Graph:
    """Operators as (name, tensors taken, tensor made) on images; tensor 0 is the input."""
    count = 1 + max(made for _, _, made in ops)
    built = tuple(Op(name, 1, given, (made,), Table(), np.zeros(0, np.uint8), 0) for name, given, made in ops)
    return Graph((X,) * count, built, (0,), (count - 1,))


def statuses(*ops: tuple[str, tuple[int, ...], int]) -> list[str]:
    return [finding.status for finding in check(graph(*ops)).findings]


def test_what_needs_the_cpu_is_left_to_it_and_what_does_not_is_mapped() -> None:
    """A side branch is mapped though it comes later in the list; a join with the CPU's answer is not."""
    assert statuses(
        ("RELU", (0,), 1), ("ELU", (1,), 2), ("RELU", (2,), 3), ("LOGISTIC", (1,), 4), ("ADD", (3, 4), 5)
    ) == [MAPPED, UNSUPPORTED, SUBGRAPH, MAPPED, SUBGRAPH]


def test_a_graph_may_begin_on_the_cpu_but_gets_one_subgraph() -> None:
    assert statuses(("ELU", (0,), 1), ("RELU", (1,), 2), ("ELU", (2,), 3), ("RELU", (3,), 4)) == [
        *(UNSUPPORTED, MAPPED, UNSUPPORTED, SUBGRAPH),
    ]
    assert statuses(("ELU", (0,), 1)) == [UNSUPPORTED]


def test_a_grouped_convolution_of_version_6_refuses_the_file() -> None:
    built = graph(("RELU", (0,), 1), ("CONV_2D", (1, 0), 2))
    newer = Graph(built.tensors, (built.ops[0], replace(built.ops[1], version=6)), built.inputs, built.outputs)
    report = check(newer)
    assert report.mapped == 0
    assert "Didn't find op for builtin opcode 'CONV_2D' version '6'" in str(report.refused)


@pytest.mark.parametrize(("name", "version"), [("TRANSPOSE_CONV", 4), ("QUANTIZE", 3), ("FULLY_CONNECTED", 12)])
def test_an_operator_newer_than_the_compiler_refuses_the_file(name: str, version: int) -> None:
    built = graph(("RELU", (0,), 1), (name, (1,), 2))
    for other, refused in ((version, True), (version - 1, name == "FULLY_CONNECTED")):
        newer = Graph(built.tensors, (built.ops[0], replace(built.ops[1], version=other)), built.inputs, built.outputs)
        told = f"Didn't find op for builtin opcode '{name}' version '{other}'"
        assert (told in str(check(newer).refused)) == refused


def test_a_reshape_by_a_computed_shape_refuses_the_file() -> None:
    shape = tensor((2,), "int32")
    op = Op("RESHAPE", 1, (0, 1), (2,), Table(), np.zeros(0, np.uint8), 0)
    report = check(Graph((X, shape, tensor((1, 1024))), (op,), (0, 1), (2,)))
    assert report.mapped == 0
    assert "dynamic-sized tensors: RESHAPE (operator 0)" in str(report.refused)
    fixed = check(Graph((X, integers(1, 1024), tensor((1, 1024))), (op,), (0,), (2,)))
    assert (fixed.refused, fixed.mapped) == (None, 1)
