"""A TFLite file as a graph of operators and tensors, every index checked; nothing is executed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np

from edge.bundle.flatbuffer import Malformed, Table, read_model
from edge.bundle.model_check import WIDTH
from edge.errors import SourceError
from edge_quantize.edgetpu.names import NAMES, TYPES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

T = TypeVar("T")
CUSTOM: Final = "CUSTOM"
MAX_RANK: Final = 8
MAX_REFERENCES: Final = 1_000_000
"""Operators' inputs and outputs together: shared vectors could make a small file look like a giant graph."""
MAX_READ: Final = 1 << 32
"""Bytes of the constants that all operators take together: they could share a big one, too."""
MAX_FILE: Final = (1 << 31) - 1
"""Bytes; a flatbuffer's offsets reach no further."""
MAX_INTEGERS: Final = 64
"""Axes, sizes and paddings are a few numbers; a longer list is none of them."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor: shape as stored, element type by name, and its bytes when the file holds its values."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    scales: int
    scale: float
    zero_point: int
    content: NDArray[np.uint8] | None
    variable: bool
    offset: int

    @property
    def constant(self) -> bool:
        """Does the file hold its values."""
        return self.content is not None

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all elements; 0 for types without a fixed width."""
        return self.size * WIDTH.get(TYPES.index(self.dtype), 0) if self.dtype in TYPES else 0

    def integers(self) -> tuple[int, ...] | None:
        """Values of a short constant int32 or int64 tensor, else None."""
        width = {"int32": 4, "int64": 8}.get(self.dtype)
        if self.content is None or width is None or len(self.content) > width * MAX_INTEGERS:
            return None
        return tuple(int(n) for n in np.frombuffer(self.content[: len(self.content) // width * width], f"<i{width}"))


@dataclass(frozen=True, slots=True)
class Op:
    """One operator; inputs that are left out are -1."""

    name: str
    version: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Table
    custom_options: NDArray[np.uint8]
    offset: int


@dataclass(frozen=True, slots=True)
class Graph:
    """The first (and, for every model the Edge TPU compiler takes, only) subgraph of a model."""

    tensors: tuple[Tensor, ...]
    ops: tuple[Op, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    def given(self, op: Op) -> tuple[Tensor, ...]:
        """Tensors an operator takes, those left out left out."""
        return tuple(self.tensors[i] for i in op.inputs if i >= 0)

    def made(self, op: Op) -> tuple[Tensor, ...]:
        """Tensors an operator makes."""
        return tuple(self.tensors[i] for i in op.outputs)


def read_graph(data: bytes) -> Graph:
    """Read a `.tflite` file.

    Raises:
        Malformed: the offset and what is wrong there.

    """
    model = read_model(data)
    subgraphs: list[Table] = model.get("subgraphs", [])
    if not subgraphs:
        raise Malformed(model.offset, "the model has no subgraph")
    graph = subgraphs[0]
    buffers: list[Table] = model.get("buffers", [])
    tensors = tuple(_tensor(table, buffers) for table in graph.get("tensors", []))
    codes: list[Table] = model.get("operator_codes", [])
    operators: list[Table] = graph.get("operators", [])
    references = sum(len(op.get(key, ())) for op in operators for key in ("inputs", "outputs"))
    if references > MAX_REFERENCES:
        raise Malformed(graph.offset, f"operators refer to {references} tensors")
    ops = tuple(_op(table, codes, len(tensors)) for table in operators)
    taken = (tensors[i].content for op in ops for i in op.inputs if i >= 0)
    if sum(len(content) for content in taken if content is not None) > MAX_READ:
        raise Malformed(graph.offset, f"operators take constants of more than {MAX_READ} bytes")
    ends = (_indices(graph, key, len(tensors), 0) for key in ("inputs", "outputs"))
    return Graph(tensors, ops, *ends)


def open_model(path: Path, read: Callable[[bytes], T]) -> T:
    """What `read` makes of a `.tflite` file.

    Raises:
        SourceError: it cannot be read, or `read` found it malformed; names the offset.

    """
    try:
        if path.exists() and not path.is_file():
            msg = f"{path}: no file: give a .tflite file"
            raise SourceError(msg)
        if path.stat().st_size > MAX_FILE:
            msg = f"{path}: longer than {MAX_FILE} bytes: no .tflite file can be"
            raise SourceError(msg)
        return read(path.read_bytes())
    except OSError as error:
        msg = f"{path}: {error.strerror}: give a .tflite file"
        raise SourceError(msg) from error
    except Malformed as error:
        msg = f"{path}: {error}: damaged, or no TFLite model: convert, compile or copy it again"
        raise SourceError(msg) from error


def _tensor(table: Table, buffers: list[Table]) -> Tensor:
    number = int(table.get("buffer", 0))
    if number >= max(len(buffers), 1):
        raise Malformed(table.offset, f"buffer {number} of {len(buffers)}")
    content: Any = buffers[number].get("data", ()) if buffers else ()
    shape = tuple(int(n) for n in table.get("shape", ())[: MAX_RANK + 1])
    if any(n < 0 for n in shape) or len(shape) > MAX_RANK:
        raise Malformed(table.offset, f"shape {shape}")
    kind = int(table.get("type", 0))
    said: Table = table.get("quantization", Table())
    scale, zero = said.get("scale", ()), said.get("zero_point", ())
    return Tensor(
        name=str(table.get("name", "")),
        shape=shape,
        dtype=TYPES[kind] if 0 <= kind < len(TYPES) else f"type {kind}",
        scales=len(scale),
        scale=float(scale[0]) if len(scale) else 0.0,
        zero_point=int(zero[0]) if len(zero) else 0,
        content=content if len(content) else None,
        variable=bool(table.get("is_variable", 0)),
        offset=table.offset,
    )


def _op(table: Table, codes: list[Table], tensors: int) -> Op:
    number = int(table.get("opcode_index", 0))
    if number >= len(codes):
        raise Malformed(table.offset, f"operator code {number} of {len(codes)}")
    code = codes[number]
    builtin = max(int(code.get("builtin_code", 0)), int(code.get("deprecated_builtin_code", 0)))
    name = NAMES[builtin] if 0 <= builtin < len(NAMES) else f"BUILTIN_{builtin}"
    if name == CUSTOM:
        name = f"{CUSTOM}:{_printable(str(code.get('custom_code', '')))}"
    options: Any = table.get("builtin_options", Table())
    return Op(
        name=name,
        version=int(code.get("version", 1)),
        inputs=_indices(table, "inputs", tensors, -1),
        outputs=_indices(table, "outputs", tensors, 0),
        options=options,
        custom_options=table.get("custom_options", np.zeros(0, np.uint8)),
        offset=table.offset,
    )


def _indices(table: Table, key: str, tensors: int, least: int) -> tuple[int, ...]:
    found = tuple(int(i) for i in table.get(key, ()))
    for index in found:
        if not least <= index < tensors:
            raise Malformed(table.offset, f"{key}: tensor {index} of {tensors}")
    return found


def _printable(text: str) -> str:
    """A name from a stranger's file, fit for a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text[:80])
