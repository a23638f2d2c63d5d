"""What the service and its workers share: memory, and the few words they exchange. Light: the worker imports it.

All memory is anonymous (`memfd`) and inherited by descriptor: it has no name, is gone with its last user however that
one ends, and no face in it is ever a file. Words are packets of a socket pair.
"""

from __future__ import annotations

import math
import mmap
import os
import struct
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from edge.inference.tflite import Signature

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Rows = NDArray[Any]
    """Inputs or outputs (N, …) of the model's own dtype and shape."""
    Model = tuple[str, Signature, Signature, bytes, Rows]
    """File, input, output, content and golden inputs."""

ROWS: Final = 64
"""Inputs that a worker is given at once; there is room for more where a model has more golden ones."""
REQUEST: Final = struct.Struct("<II")
"""Service to worker: number of the model, how many of its inputs are to be computed."""
DONE, FAILED = b"+", b"-"
"""Worker to service: once for all golden outputs, then for each input; or, before the reason, that it gives up."""
_ALIGN: Final = 64


class Plan(NamedTuple):
    """Where one model lies."""

    file: str
    input: Signature
    output: Signature
    content: tuple[int, int]
    """Offset and bytes in the store."""
    golden: tuple[int, int]
    """Offset and count of its golden inputs in the store."""
    inputs: int
    """Offset of the inputs in a worker's exchange."""
    outputs: int

    @classmethod
    def parse(cls, fields: list[Any]) -> Plan:
        """A plan that went through JSON."""
        given, asked = (Signature(tuple(shape), *rest) for shape, *rest in fields[1:3])
        return cls(fields[0], given, asked, *fields[3:])

    def exchange(self, memory: mmap.mmap) -> tuple[Rows, Rows]:
        """Views of the inputs and outputs."""
        room = max(ROWS, self.golden[1])
        return rows(self.input, memory, self.inputs, room), rows(self.output, memory, self.outputs, room)


def rows(tensor: Signature, memory: mmap.mmap, at: int, count: int) -> Rows:
    """View of `count` inputs or outputs."""
    return np.ndarray((count, *tensor.shape[1:]), tensor.dtype, memory, at)


def _row_bytes(tensor: Signature) -> int:
    """Bytes of one input or output."""
    return math.prod(tensor.shape[1:]) * np.dtype(tensor.dtype).itemsize


class Store:
    """Models and golden inputs in memory that every worker inherits, and where all lies; `fd` is its descriptor."""

    def __init__(self, models: Sequence[Model]) -> None:
        self.plans: list[Plan] = []
        store, self.exchange_bytes = bytearray(), 0
        for file, given, asked, content, golden in models:
            at = len(store)
            store += content + bytes(-len(content) % _ALIGN)
            chips = len(store)
            store += golden.tobytes() + bytes(-golden.nbytes % _ALIGN)
            inputs, outputs = (self._reserve(max(ROWS, len(golden)) * _row_bytes(tensor)) for tensor in (given, asked))
            self.plans.append(Plan(file, given, asked, (at, len(content)), (chips, len(golden)), inputs, outputs))
        self.fd = memory(len(store))
        with mmap.mmap(self.fd, 0) as view:
            view[:] = bytes(store)

    def _reserve(self, size: int) -> int:
        at = self.exchange_bytes
        self.exchange_bytes += size + -size % _ALIGN
        return at

    def close(self) -> None:
        """Free the memory once the last worker has; safe to call twice."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def memory(size: int) -> int:
    """A descriptor of `size` bytes of anonymous memory."""
    fd = os.memfd_create("edge")
    os.ftruncate(fd, size)
    return fd
