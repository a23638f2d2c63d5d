"""A bounds-checking reader of TFLite flatbuffers: the runtimes follow every offset unchecked and crash on a bad one.

Formats: https://flatbuffers.dev/internals/ and TensorFlow's `schema.fbs` (version 3). Alignment is checked too, as
flatbuffers' own C++ verifier does.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import numpy as np

IDENTIFIER: Final = b"TFL3"
MAX_TABLES: Final = 100_000
"""Shared offsets could make a small file look like billions of tables."""

# Fields in the order of the schema. A letter is a scalar of `struct`, brackets are a vector.
_SCHEMA: Final[dict[str, str]] = {
    "Model": "version:I operator_codes:[OperatorCode] subgraphs:[SubGraph] description:string buffers:[Buffer] "
    "metadata_buffer:[i] metadata:[Metadata] signature_defs:[SignatureDef]",
    "OperatorCode": "deprecated_builtin_code:b custom_code:string version:i builtin_code:i",
    "SubGraph": "tensors:[Tensor] inputs:[i] outputs:[i] operators:[Operator] name:string debug_metadata_index:i",
    "Tensor": "shape:[i] type:b buffer:I name:string quantization:Quantization is_variable:B sparsity:Opaque "
    "shape_signature:[i] has_rank:B variant_tensors:[Opaque]",
    "Quantization": "min:[f] max:[f] scale:[f] zero_point:[q] details_type:B details:Opaque quantized_dimension:i",
    "Operator": "opcode_index:I inputs:[i] outputs:[i] builtin_options_type:B builtin_options:Options "
    "custom_options:[B] custom_options_format:b mutating_variable_inputs:[B] intermediates:[i] "
    "large_custom_options_offset:Q large_custom_options_size:Q builtin_options_2_type:B builtin_options_2:Opaque "
    "debug_metadata_index:i",
    "Buffer": "data:[B] offset:Q size:Q",
    "Metadata": "name:string buffer:I",
    "SignatureDef": "inputs:[TensorMap] outputs:[TensorMap] signature_key:string unused:I subgraph_index:I",
    "TensorMap": "name:string tensor_index:I",
}
# Members of the union BuiltinOptions whose fields matter: those with offsets, those with steps that divide, and those
# by which the Edge TPU compiler decides. Every other member up to 126 holds scalars only.
_OPTIONS: Final[dict[int, str]] = {
    1: "padding:b stride_w:i stride_h:i activation:b dilation_w:i dilation_h:i bias_type:b",
    2: "padding:b stride_w:i stride_h:i depth_multiplier:i activation:b dilation_w:i dilation_h:i",
    3: "num_channels:i columns:[i] dims:[i]",
    5: "padding:b stride_w:i stride_h:i filter_w:i filter_h:i activation:b",
    8: "activation:b weights_format:b keep_num_dims:B",
    10: "axis:i activation:b",
    15: "new_height:i new_width:i align_corners:B half_pixel_centers:B",
    17: "new_shape:[i]",
    30: "squeeze_dims:[i]",
    32: "begin_mask:i end_mask:i ellipsis_mask:i new_axis_mask:i shrink_axis_mask:i",
    59: "values_count:i axis:i",
    74: "align_corners:B half_pixel_centers:B",
    111: "container:string shared_name:string",
    115: "boundaries:[f]",
}
LAST_OPTIONS: Final = 126


class Malformed(ValueError):
    """What is wrong with a file, and at which byte `offset`."""

    def __init__(self, offset: int, what: str) -> None:
        self.offset = offset
        super().__init__(f"byte {offset}: {what}")


class Table(dict[str, Any]):
    """Fields of one table that are present: scalars, `str`, arrays, tables, lists of tables; `offset` in the file."""

    offset: int = 0


def read_model(data: bytes) -> Table:
    """Read a TFLite model, every offset, length and alignment checked.

    Vectors of scalars are numpy views of `data`; sparse tensors, custom quantisation and StableHLO options appear as
    empty tables.

    Raises:
        Malformed: the offset and what is wrong there.

    """
    if len(data) < 8 or data[4:8] != IDENTIFIER:
        raise Malformed(min(4, len(data)), "no TFLite model: the identifier TFL3 is missing")
    return read_table(data, "Model", _SCHEMA)


def read_table(data: bytes, root: str, schema: dict[str, str]) -> Table:
    """Read the flatbuffer `data` whose root table is `root`, every offset, length and alignment checked.

    Args:
        data: the whole flatbuffer.
        root: a key of `schema`.
        schema: fields of each table in their order, as `name:kind` apart by blanks. A kind is a letter of `struct`, a
            table's name, `string`, `bytes` (a string that is not text) or a vector of one of these in brackets; a
            table that `schema` does not hold is checked to exist and read as empty.

    Raises:
        Malformed: the offset and what is wrong there.

    """
    reader = _Reader(data, schema)
    return reader.table(reader.follow(0, "the root"), root)


class _Reader:
    def __init__(self, data: bytes, schema: dict[str, str]) -> None:
        self._data, self._schema, self._tables = data, schema, 0
        self._text = 4 * len(data)  # shared offsets could make a small file look like gigabytes of text, too

    def table(self, at: int, name: str) -> Table:
        return self._table(at, name, self._schema.get(name, ""))

    def _scalar(self, at: int, kind: str, what: str) -> Any:  # noqa: ANN401 - int or float
        size = struct.calcsize("<" + kind)
        if at < 0 or at + size > len(self._data):
            raise Malformed(at, f"{what} lies outside the file of {len(self._data)} bytes")
        if at % size:
            raise Malformed(at, f"{what} is not aligned to {size} bytes")
        return struct.unpack_from("<" + kind, self._data, at)[0]

    def follow(self, at: int, what: str) -> int:
        to = at + int(self._scalar(at, "I", what))
        if to == at or to + 4 > len(self._data):
            raise Malformed(at, f"{what} points to byte {to} of {len(self._data)}")
        return to

    def _table(self, at: int, name: str, fields: str) -> Table:
        self._tables += 1
        if self._tables > MAX_TABLES:
            raise Malformed(at, f"more than {MAX_TABLES} tables")
        vtable = at - int(self._scalar(at, "i", name))
        if not 0 <= vtable <= len(self._data) - 4:
            raise Malformed(at, f"{name} has its vtable at byte {vtable}")
        length, inline = int(self._scalar(vtable, "H", f"the vtable of {name}")), 0
        if length >= 4:
            inline = int(self._scalar(vtable + 2, "H", f"the vtable of {name}"))
        if length < 4 or length % 2 or vtable + length > len(self._data):
            raise Malformed(vtable, f"the vtable of {name} has {length} bytes")
        if inline < 4 or at + inline > len(self._data):
            raise Malformed(at, f"{name} has {inline} bytes")
        places = struct.unpack_from(f"<{length // 2 - 2}H", self._data, vtable + 4)
        if any(place and not 4 <= place < inline for place in places):
            raise Malformed(vtable, f"a field of {name} lies outside it")
        table = Table()
        table.offset = at
        for place, field in zip(places, fields.split(), strict=False):
            key, kind = field.split(":")
            if not place:
                continue
            if place + (struct.calcsize("<" + kind) if len(kind) == 1 else 4) > inline:
                raise Malformed(at, f"{name}.{key} lies outside its table")
            table[key] = self._field(at + place, kind, f"{name}.{key}", table)
        return table

    def _field(self, at: int, kind: str, what: str, table: Table) -> Any:  # noqa: ANN401 - one of Table's values
        if len(kind) == 1:
            return self._scalar(at, kind, what)
        to = self.follow(at, what)
        if kind in {"string", "bytes"}:
            return self._string(to, what, text=kind == "string")
        if kind.startswith("["):
            return self._vector(to, kind[1:-1], what)
        if kind == "Options":
            member = int(table.get("builtin_options_type", 0))
            if member > LAST_OPTIONS:
                raise Malformed(at, f"{what} is of unknown type {member}")
            return self._table(to, f"options {member}", _OPTIONS.get(member, ""))
        return self.table(to, kind)

    def _length(self, at: int, size: int, what: str) -> int:
        count = int(self._scalar(at, "I", what))
        if at + 4 + count * size > len(self._data):
            raise Malformed(at, f"{what} has {count} elements and runs past the file's {len(self._data)} bytes")
        return count

    def _string(self, at: int, what: str, *, text: bool) -> str | bytes:
        count = self._length(at, 1, what)
        content = self._data[at + 4 : at + 5 + count]
        if len(content) <= count or content[-1]:
            raise Malformed(at, f"{what} does not end in a zero byte")
        self._text -= count
        if self._text < 0:
            raise Malformed(at, f"{what} is one text too many: together they are longer than the file")
        return content[:-1].decode("utf-8", "replace") if text else content[:-1]

    def _vector(self, at: int, kind: str, what: str) -> Any:  # noqa: ANN401 - an array or a list of tables
        if len(kind) == 1:
            dtype = np.dtype("<" + {"B": "u1", "I": "u4", "i": "i4", "f": "f4", "q": "i8"}[kind])
            count = self._length(at, dtype.itemsize, what)
            if count and (at + 4) % dtype.itemsize:
                raise Malformed(at, f"{what} is not aligned to {dtype.itemsize} bytes")
            return np.frombuffer(self._data, dtype, count, at + 4)
        count = self._length(at, 4, what)
        if count > MAX_TABLES:
            raise Malformed(at, f"{what} has {count} elements, more than {MAX_TABLES}")
        places = [self.follow(at + 4 + 4 * i, f"{what}[{i}]") for i in range(count)]
        if kind == "bytes":
            return [self._string(place, what, text=False) for place in places]
        return [self.table(place, kind) for place in places]
