"""What a compiled file holds: the executables inside its `edgetpu-custom-op`s.

An op's options are a FlexBuffer map whose key "4" is a `Package` (google-coral/libedgetpu, `executable.fbs`). The
parameters of its PARAMETER_CACHING executable are kept in the Edge TPU's SRAM, those of the others are sent at every
inference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from edge.bundle.flatbuffer import Malformed, Table, read_table
from edge_quantize.edgetpu.flexbuffer import read_bytes
from edge_quantize.edgetpu.graph import CUSTOM, read_graph

if TYPE_CHECKING:
    from edge_quantize.edgetpu.graph import Op

EDGETPU_OP: Final = f"{CUSTOM}:edgetpu-custom-op"
PACKAGE_KEY: Final = "4"
EXECUTABLE_TYPES: Final = ("STAND_ALONE", "PARAMETER_CACHING", "EXECUTION_ONLY")
_SCHEMA: Final = {
    "Package": "min_runtime_version:i serialized_multi_executable:[B] signature:[B] keypair_version:i "
    "compiler_version:string virtual_chip_id:i",
    "MultiExecutable": "serialized_executables:[bytes]",
    "Executable": "version:i name:string serialized_model:[B] batch_size:i scratch_size_bytes:i "
    "instruction_bitstreams:[InstructionBitstream] parameters:[B] dma_hints:Opaque input_layers:[Opaque] "
    "output_layers:[Opaque] chip:string estimated_cycles:i used_narrow_memory_bytes_per_tile:i type:h "
    "parameter_caching_token:Q use_tpu_dram_for_parameters:B estimated_cycles_64bit:q",
    "InstructionBitstream": "bitstream:[B]",
}


@dataclass(frozen=True, slots=True)
class TpuSubgraph:
    """One `edgetpu-custom-op`: sizes in bytes, the token as 16 hex digits or None."""

    on_chip_bytes: int
    streamed_bytes: int
    caching_token: str | None
    min_runtime: int
    compiler: str
    instruction_bytes: int
    scratch_bytes: int
    narrow_bytes_per_tile: int
    """Activation memory of one of the 16 tiles that the executables use."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """A `.tflite` file's Edge TPU subgraphs, and the operators it leaves to the CPU in graph order."""

    subgraphs: tuple[TpuSubgraph, ...]
    cpu_ops: tuple[str, ...]


def read_compiled(data: bytes) -> Compiled:
    """Read a `.tflite` file, compiled or not.

    Raises:
        Malformed: the offset and what is wrong there.

    """
    graph = read_graph(data)
    tpu = [op for op in graph.ops if op.name == EDGETPU_OP]
    if sum(len(op.custom_options) for op in tpu) > len(data):
        raise Malformed(tpu[0].offset, "several edgetpu-custom-ops share their options")
    return Compiled(
        subgraphs=tuple(_subgraph(op) for op in tpu),
        cpu_ops=tuple(op.name for op in graph.ops if op.name != EDGETPU_OP),
    )


def _subgraph(op: Op) -> TpuSubgraph:
    try:
        package = _package(read_bytes(op.custom_options.tobytes(), PACKAGE_KEY), b"DWN1", "Package")
        multi = _package(package.get("serialized_multi_executable", b""), None, "MultiExecutable")
        parts = [_package(part, None, "Executable") for part in multi.get("serialized_executables", ())]
        return _totals(package, parts)
    except Malformed as error:
        msg = f"in the options of the edgetpu-custom-op there, {error}"
        raise Malformed(op.offset, msg) from error


def _package(data: Any, identifier: bytes | None, root: str) -> Table:  # noqa: ANN401 - bytes or an array of them
    content = bytes(data)
    if identifier is not None and content[4:8] != identifier:
        raise Malformed(4, f"the package's identifier is not {identifier.decode()}")
    try:
        return read_table(content, root, _SCHEMA)
    except Malformed as error:
        raise Malformed(error.offset, f"{root}: {str(error).partition(': ')[2]}") from error


def _totals(package: Table, parts: list[Table]) -> TpuSubgraph:
    cached = streamed = instructions = scratch = narrow = 0
    tokens: list[int] = []
    for part in parts:
        kind = int(part.get("type", 0))
        if not 0 <= kind < len(EXECUTABLE_TYPES):
            raise Malformed(part.offset, f"an executable of unknown type {kind}")
        size = len(part.get("parameters", ()))
        if EXECUTABLE_TYPES[kind] == "PARAMETER_CACHING":
            cached += size
        else:
            streamed += size
        tokens.append(int(part.get("parameter_caching_token", 0)))
        instructions += sum(len(chunk.get("bitstream", ())) for chunk in part.get("instruction_bitstreams", ()))
        scratch = max(scratch, int(part.get("scratch_size_bytes", 0)))
        narrow = max(narrow, int(part.get("used_narrow_memory_bytes_per_tile", 0)))
    token = next((token for token in tokens if token), 0)
    return TpuSubgraph(
        on_chip_bytes=cached,
        streamed_bytes=streamed,
        caching_token=f"{token:016x}" if token else None,
        min_runtime=int(package.get("min_runtime_version", 0)),
        compiler=str(package.get("compiler_version", "")),
        instruction_bytes=instructions,
        scratch_bytes=scratch,
        narrow_bytes_per_tile=narrow,
    )
