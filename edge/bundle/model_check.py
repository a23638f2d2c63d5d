"""Is a TFLite file fit to be given to an interpreter? Both runtimes crash on files that this refuses.

The flatbuffer's bounds are checked by `read_model`; here, that its numbers make a graph: indices in range, tensors made
before they are used, constants never written, sizes that agree with the shapes, steps that do not divide by zero.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edge.bundle.flatbuffer import Malformed, Table, read_model

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

WIDTH: Final = {0: 4, 1: 2, 2: 4, 3: 1, 4: 8, 6: 1, 7: 2, 8: 8, 9: 1, 10: 8, 11: 16, 12: 8, 15: 4, 16: 2, 18: 2}
"""Bytes of one element, by TensorType; strings (5), resources, variants and packed int4 have no fixed width."""
NUMBERS: Final = frozenset({*WIDTH, 17})
MAX_TENSOR: Final = 1 << 26
"""Bytes; the largest tensor of a model for 48×48 chips or a camera frame is far below."""
_STEPS: Final = {
    1: ("stride_w", "stride_h"),
    2: ("stride_w", "stride_h"),
    5: ("stride_w", "stride_h", "filter_w", "filter_h"),
}
_DILATIONS: Final = ("dilation_w", "dilation_h")
_NEEDS: Final = {0: 11, 1: 5, 3: 1, 4: 2, 17: 5, 9: 8, 25: 9, 40: 27}
"""Options that an operator cannot do without (ADD, AVERAGE_POOL_2D, CONV_2D, DEPTHWISE_CONV_2D, MAX_POOL_2D,
FULLY_CONNECTED, SOFTMAX, MEAN): builtin code to member of the union."""
_OPERANDS: Final = {0: (2, 2), 1: (1, 1), 3: (2, 3), 4: (2, 3), 9: (2, 3), 17: (1, 1), 25: (1, 1), 40: (2, 2)}
"""Least and most inputs of the same operators; each has one output."""


def check_model(data: bytes) -> Table:
    """Read a TFLite model and check that an interpreter can be given it.

    Args:
        data: the whole file.

    Returns:
        The model's tables, see `read_model`.

    Raises:
        Malformed: the offset and what is wrong there.

    """
    model = read_model(data)
    graphs: list[Table] = model.get("subgraphs", [])
    if model.get("version") != 3 or not graphs:
        what = f"schema version {model.get('version', 0)} with {len(graphs)} subgraphs: version 3 and one are needed"
        raise Malformed(model.offset, what)
    _check_buffers(model)
    for code in model.get("operator_codes", []):
        if code.get("version", 1) < 1 or max(code.get("builtin_code", 0), code.get("deprecated_builtin_code", 0)) < 0:
            raise Malformed(code.offset, "an operator code or version that does not exist")
    for number, graph in enumerate(graphs):
        _Graph(model, graph, f"subgraph {number}").check()
    for signature in model.get("signature_defs", []):
        _within(signature, signature.get("subgraph_index", 0), len(graphs), "signature's subgraph")
        graph = graphs[signature.get("subgraph_index", 0)]
        for entry in [*signature.get("inputs", []), *signature.get("outputs", [])]:
            _within(entry, entry.get("tensor_index", 0), len(graph.get("tensors", [])), "signature's tensor")
    return model


def _check_buffers(model: Table) -> None:
    buffers: list[Table] = model.get("buffers", [])
    if not buffers or len(buffers[0].get("data", ())):
        raise Malformed(model.offset, "buffer 0 must exist and be empty")
    for buffer in buffers:
        if buffer.get("offset", 0) or buffer.get("size", 0):
            raise Malformed(buffer.offset, "a buffer's data lie outside the flatbuffer")
    for entry in model.get("metadata", []):
        _within(entry, entry.get("buffer", 0), len(buffers), "metadata buffer")


def _within(where: Table, index: int, count: int, what: str) -> None:
    if not 0 <= index < count:
        raise Malformed(where.offset, f"{what} {index} of {count}")


class _Graph:
    def __init__(self, model: Table, graph: Table, name: str) -> None:
        self._codes, self._buffers = model.get("operator_codes", []), model["buffers"]
        self._graph, self._name = graph, name
        self._tensors: list[Table] = graph.get("tensors", [])
        self._ready: set[int] = set()

    def check(self) -> None:
        for index, tensor in enumerate(self._tensors):
            if self._constant(tensor, f"{self._name} tensor {index}") or tensor.get("is_variable"):
                self._ready.add(index)
        given = self._indices(self._graph, "inputs", 0)
        for index in given:
            if index in self._ready and not self._tensors[index].get("is_variable"):
                raise Malformed(self._graph.offset, f"{self._name} input {index} is a constant")
        self._ready |= set(given)
        for number, operator in enumerate(self._graph.get("operators", [])):
            self._operator(operator, f"{self._name} operator {number}")
        asked = self._indices(self._graph, "outputs", 0)
        self._made(self._graph, asked, self._name)

    def _indices(self, where: Table, key: str, least: int) -> list[int]:
        found = [int(i) for i in where.get(key, ())]
        for index in found:
            if not least <= index < len(self._tensors):
                raise Malformed(where.offset, f"{key}: tensor {index} of {len(self._tensors)}")
        return found

    def _made(self, where: Table, indices: Iterable[int], name: str) -> None:
        for index in indices:
            if index >= 0 and index not in self._ready:
                raise Malformed(where.offset, f"{name} needs tensor {index} before it is made")

    def _constant(self, tensor: Table, name: str) -> bool:
        """Check one tensor; True when the file holds its values."""
        shape: list[int] = [int(n) for n in tensor.get("shape", ())]
        kind = int(tensor.get("type", 0))
        _within(tensor, int(tensor.get("buffer", 0)), len(self._buffers), f"{name}: buffer")
        size = math.prod(shape) * WIDTH.get(kind, 1)
        if len(shape) > 8 or any(n < 0 for n in shape) or size > MAX_TENSOR:
            raise Malformed(tensor.offset, f"{name}: shape {shape}")
        if "sparsity" in tensor:
            raise Malformed(tensor.offset, f"{name} is sparse, which is not supported")
        self._quantisation(tensor, shape, name)
        data: NDArray[Any] | tuple[()] = self._buffers[tensor.get("buffer", 0)].get("data", ())
        if not len(data):
            return False
        if kind not in NUMBERS:
            raise Malformed(tensor.offset, f"{name}: a constant of type {kind} is not supported")
        wanted = -(-size // 2) if kind == 17 else size
        if len(data) != wanted:
            raise Malformed(tensor.offset, f"{name}: {len(data)} bytes of data, shape {shape} needs {wanted}")
        return True

    @staticmethod
    def _quantisation(tensor: Table, shape: list[int], name: str) -> None:
        said: Table = tensor.get("quantization", Table())
        scale, zero = said.get("scale", ()), said.get("zero_point", ())
        if not len(scale):
            return
        at = int(said.get("quantized_dimension", 0))
        channels = shape[at] if 0 <= at < len(shape) else 0
        if len(scale) not in {1, channels} or len(zero) not in {0, 1, len(scale)}:
            raise Malformed(said.offset, f"{name}: {len(scale)} scales and {len(zero)} zero points for shape {shape}")
        # Whole arrays: number by number, ten thousand scales were a fortieth of the service's start.
        sound = np.isfinite(scale) & np.greater(scale, 0)
        if not sound.all() or np.less(zero, -32768).any() or np.greater(zero, 65535).any():
            raise Malformed(said.offset, f"{name}: a scale that is not positive, or a zero point out of range")

    def _operator(self, operator: Table, name: str) -> None:
        index = int(operator.get("opcode_index", 0))
        _within(operator, index, len(self._codes), f"{name}: operator code")
        given, made = self._indices(operator, "inputs", -1), self._indices(operator, "outputs", 0)
        self._made(operator, given, name)
        for tensor in made:
            if tensor in self._ready and not self._tensors[tensor].get("is_variable"):
                raise Malformed(operator.offset, f"{name} writes tensor {tensor}, which is given or already made")
            self._ready.add(tensor)
        self._ready |= set(self._indices(operator, "intermediates", 0))
        code = self._codes[index]
        builtin = max(int(code.get("deprecated_builtin_code", 0)), int(code.get("builtin_code", 0)))
        options: Table = operator.get("builtin_options", Table())
        member = int(operator.get("builtin_options_type", 0)) if "builtin_options" in operator else 0
        if builtin in _NEEDS and member != _NEEDS[builtin]:
            raise Malformed(operator.offset, f"{name}: operator {builtin} has options of type {member}")
        if builtin in _OPERANDS:
            least, most = _OPERANDS[builtin]
            real = [i for i in given[:least] if i >= 0]
            if len(real) < least or len(given) > most or len(made) != 1:
                raise Malformed(operator.offset, f"{name}: operator {builtin} takes {given} and gives {made}")
        for key in _STEPS.get(member, ()):
            self._step(options, key, 0, name)
        for key in _DILATIONS if member in {1, 2} else ():
            self._step(options, key, 1, name)

    @staticmethod
    def _step(options: Table, key: str, default: int, name: str) -> None:
        value = int(options.get(key, default))
        if not 1 <= value <= 4096:
            raise Malformed(options.offset, f"{name}: {key} is {value}")
