"""Google's `edgetpu_compiler`: call it, read its log, and check what it made.

Options and log: https://coral.ai/docs/edgetpu/compiler and logs published in issues of google-coral/edgetpu.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edge.errors import BackendError, BundleError
from edge_quantize.edgetpu.executable import read_compiled
from edge_quantize.edgetpu.graph import open_model, read_graph

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edge_quantize.edgetpu.executable import TpuSubgraph
    from edge_quantize.edgetpu.graph import Graph

PROGRAM: Final = "edgetpu_compiler"
MISSING: Final = (
    f"{PROGRAM} is not on PATH: install it on an x86-64 Debian or Ubuntu (https://coral.ai/docs/edgetpu/compiler: "
    "apt-get install edgetpu-compiler) and run this there; without it, 'edge-quantize check' tells what it would do"
)
_UNITS: Final = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_FIELDS: Final = {
    "On-chip memory used for caching model parameters": "on_chip_bytes",
    "On-chip memory remaining for caching model parameters": "remaining_bytes",
    "Off-chip memory used for streaming uncached model parameters": "streamed_bytes",
    "Number of Edge TPU subgraphs": "subgraphs",
    "Total number of operations": "operations",
}
_NUMBER: Final = re.compile(r"(\d+(?:\.\d+)?)([KMG]iB|B)?")
_ROW: Final = re.compile(r"([A-Z][A-Z0-9_]*)\s+(\d+)\s+(\S.*)")
_COMPLAINT: Final = re.compile(r"failed: |error|not quantized|Invalid model|Segmentation fault|uncaught", re.IGNORECASE)


@dataclass
class ModelLog:
    """What the log says of one model; sizes in bytes, as rounded there."""

    file: str
    on_chip_bytes: int = 0
    remaining_bytes: int = 0
    streamed_bytes: int = 0
    subgraphs: int = 0
    operations: int = 0
    statuses: list[tuple[str, int, str]] = field(default_factory=list)
    """Operator, count, status: only with `-s`."""


@dataclass
class CompilerLog:
    """A log of any version from 2.0 to 16.0."""

    version: str = ""
    models: list[ModelLog] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


def read_log(text: str) -> CompilerLog:
    """Read what the compiler prints. Lines that are not known are passed over: a log promises nothing."""
    log = CompilerLog()
    for line in map(str.strip, text.splitlines()):
        key, _, value = (part.strip() for part in line.partition(":"))
        row = _ROW.fullmatch(line)
        if line.startswith("Edge TPU Compiler version "):
            log.version = line.split()[-1]
        elif key == "Input model":
            log.models.append(ModelLog(value))
        elif log.models and key in _FIELDS and (number := _NUMBER.fullmatch(value)):
            setattr(log.models[-1], _FIELDS[key], round(float(number[1]) * _UNITS[number[2] or "B"]))
        elif log.models and row:
            log.models[-1].statuses.append((row[1], int(row[2]), row[3]))
        elif _COMPLAINT.search(line):
            log.complaints.append(line)
    return log


def run_compiler(models: Sequence[Path], out: Path, timeout: float) -> CompilerLog:
    """Compile models together, the first served first with memory on the chip.

    Args:
        models: .tflite files.
        out: folder that gets `<stem>_edgetpu.tflite` of each.
        timeout: seconds after which the compiler is killed.

    Raises:
        BackendError: the compiler is missing, does not end, or fails; in its own words.

    """
    program = shutil.which(PROGRAM)
    if program is None:
        raise BackendError(MISSING)
    command = [program, "-s", "-o", str(out), *map(str, models)]
    try:
        # The program is a shell script around the compiler, so a session of its own: both must end.
        process = subprocess.Popen(  # noqa: S603 - fixed arguments
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace",
            start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        msg = f"{program}: {error.strerror}: reinstall {PROGRAM}"
        raise BackendError(msg) from error
    try:
        text, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired as error:
        msg = f"{program} did not end within {timeout:g} s: give --timeout more, or simplify the models"
        raise BackendError(msg) from error
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    log = read_log(text)
    absent = [path.name for path in models if not compiled_path(path, out).is_file()]
    if process.returncode or absent:
        said = "; ".join(dict.fromkeys(log.complaints)) or "it gave no reason"
        which = ", ".join(absent or [path.name for path in models])
        msg = f"{program} failed (exit code {process.returncode}) on {which}: {said}"
        raise BackendError(msg)
    return log


def compiled_path(model: Path, out: Path) -> Path:
    """Where the compiler puts what it makes of a model."""
    return out / f"{model.stem}_edgetpu.tflite"


def _ends(graph: Graph) -> list[tuple[tuple[int, ...], str, float, int]]:
    found = (graph.tensors[i] for i in (*graph.inputs, *graph.outputs))
    return [(t.shape, t.dtype, t.scale, t.zero_point) for t in found]


def verify_set(models: Mapping[Path, Path], log: CompilerLog) -> dict[Path, TpuSubgraph]:
    """Check that compiled models can stand for their sources, all of them on the chip together.

    Args:
        models: source and compiled file of each.
        log: for the compiler's reasons.

    Returns:
        The one Edge TPU subgraph of each source.

    Raises:
        BundleError: an operator is left to the CPU, parameters are streamed, inputs or outputs differ from the
            source's, or the models do not share one caching token.
        SourceError: a file is damaged.

    """
    found = {}
    for source, path in models.items():
        compiled = open_model(path, read_compiled)
        if compiled.cpu_ops:
            rows = (row for model in log.models if Path(model.file).name == source.name for row in model.statuses)
            left = [f"{count} × {name} ({why})" for name, count, why in rows if not why.startswith("Mapped")]
            msg = (
                f"{path.name}: left to the CPU: {', '.join(left or compiled.cpu_ops)}: 'edge-quantize check' tells more"
            )
            raise BundleError(msg)
        if len(compiled.subgraphs) != 1:
            msg = f"{path.name}: {len(compiled.subgraphs)} parts on the Edge TPU where one is needed: compile it again"
            raise BundleError(msg)
        part = compiled.subgraphs[0]
        if part.streamed_bytes:
            msg = (
                f"{path.name}: {part.streamed_bytes:,} bytes would be sent at every inference: the models do not fit "
                "on the chip together: make one smaller, or leave one out"
            )
            raise BundleError(msg)
        if _ends(open_model(path, read_graph)) != _ends(open_model(source, read_graph)):
            msg = f"{path.name}: inputs or outputs are not those of {source.name}: compile it again"
            raise BundleError(msg)
        found[source] = part
    tokens = {part.caching_token for part in found.values()}
    if None in tokens or len(tokens) != 1:
        named = ", ".join(sorted(map(str, tokens)))
        msg = (
            f"caching tokens {named} instead of one: the models would drive each other off the chip: compile them again"
        )
        raise BundleError(msg)
    return found
