"""What each layer loses by quantisation: the int8 model's activations beside the float model's, on the same chips."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edge.bundle.flatbuffer import read_model
from edge.errors import ConfigError, SourceError
from edge.inference.tflite import to_int8
from edge.vision.preprocess import to_input
from edge_quantize.evaluation import score

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from edge.types import U8


@dataclass(frozen=True, slots=True)
class LayerError:
    """One operator's output, float against dequantised int8, both models run from the input.

    `noise` is Σ(float - int8)² / Σ float² over all chips, `sqnr_db` the same as a ratio in dB (None in JSON where
    nothing was lost). A channel much larger than the others hides in it, so `lost` is the mean of the channels' own
    ratios, each at most 1, and `added` what that grew by over the layer's inputs. `steps` is the root mean square error
    in units of `scale`.
    """

    name: str
    op: str
    tensor: str
    shape: tuple[int, ...]
    scale: float
    zero_point: int
    noise: float
    lost: float
    added: float
    steps: float

    @property
    def sqnr_db(self) -> float:
        """Signal-to-quantisation-noise ratio in dB."""
        return -10 * math.log10(self.noise) if self.noise > 0 else math.inf

    def __str__(self) -> str:
        return f"{self.op}, {100 * self.lost:.1f} % of its channels' signal lost, SQNR {self.sqnr_db:.1f} dB"

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        sqnr = None if math.isinf(self.sqnr_db) else round(self.sqnr_db, 2)
        return {**asdict(self), "shape": list(self.shape), "sqnr_db": sqnr}


def worst(layers: Sequence[LayerError]) -> LayerError | None:
    """The layer that adds most error; the softmax is left out, since its grid of 1/256 is the design's."""
    return max((row for row in layers if row.op != "SOFTMAX"), key=lambda row: row.added, default=None)


class _Ratio:
    """Signal and noise of one tensor, by channel (its last axis)."""

    def __init__(self) -> None:
        self.signal: NDArray[np.float64] = np.zeros(1)
        self.noise: NDArray[np.float64] = np.zeros(1)

    def add(self, truth: NDArray[np.float64], rough: NDArray[np.float64]) -> None:
        axes = tuple(range(truth.ndim - 1))
        self.signal = self.signal + (truth**2).sum(axis=axes)
        self.noise = self.noise + ((truth - rough) ** 2).sum(axis=axes)

    @property
    def overall(self) -> float:
        return float(self.noise.sum() / max(self.signal.sum(), 1e-30))

    @property
    def lost(self) -> float:
        alive = self.signal > 0
        return float(np.minimum(1, self.noise[alive] / self.signal[alive]).mean()) if alive.any() else 0.0


def measure(exact: bytes, coarse: bytes, chips: U8) -> list[LayerError]:
    """Run the float and the int8 conversion of one model side by side.

    Args:
        exact: float32 TFLite model.
        coarse: its int8 model; tensors are paired by name, those without a partner are left out.
        chips: uint8 (N, 48, 48).

    Returns:
        One row an operator, in the order of computation.

    Raises:
        ValueError: the two were not converted from one graph.

    """
    tables = read_model(coarse)
    graph = tables["subgraphs"][0]
    given = [int(i) for i in graph["inputs"]]
    made = [int(o["outputs"][0]) for o in graph["operators"]]
    plain, rough = score.open_interpreter(exact, keep=True), score.open_interpreter(coarse, keep=True)
    known = {detail["name"]: detail["index"] for detail in plain.get_tensor_details()}
    details = {detail["index"]: detail for detail in rough.get_tensor_details()}
    paired = {i: known[details[i]["name"]] for i in [*given, *made] if details[i]["name"] in known}
    if len(paired) <= len(made) // 2:
        msg = f"only {len(paired)} tensors of the two models bear the same name: convert both from one graph"
        raise ValueError(msg)
    ratios = {index: _Ratio() for index in paired}
    for whole, grey in zip(to_input(chips), to_int8(chips), strict=True):
        for interpreter, chip in ((plain, whole), (rough, grey)):
            interpreter.set_tensor(interpreter.get_input_details()[0]["index"], chip[None])
            interpreter.invoke()
        for index, partner in paired.items():
            truth = np.asarray(plain.get_tensor(partner), np.float64)
            ratios[index].add(truth, _dequantised(rough.get_tensor(index), details[index]))
    rows = []
    for operator, index in zip(graph["operators"], made, strict=True):
        if index not in paired:
            continue
        ratio = ratios[index]
        before = max((ratios[int(i)].lost for i in operator["inputs"] if int(i) in ratios), default=0.0)
        detail = details[index]
        scale, zero_point = detail["quantization"]
        size = len(chips) * int(np.prod(detail["shape"]))
        rows.append(
            LayerError(
                name=_short(detail["name"]),
                op=_op_name(tables["operator_codes"][operator.get("opcode_index", 0)]),
                tensor=detail["name"],
                shape=tuple(int(n) for n in detail["shape"]),
                scale=float(scale),
                zero_point=int(zero_point),
                noise=ratio.overall,
                lost=ratio.lost,
                added=max(0.0, ratio.lost - before),
                steps=math.sqrt(float(ratio.noise.sum()) / size) / scale if scale else 0.0,
            )
        )
    return rows


def _dequantised(raw: NDArray[Any], detail: Mapping[str, Any]) -> NDArray[np.float64]:
    scale, zero_point = detail["quantization"]
    values: NDArray[np.float64] = raw.astype(np.float64)
    return (values - zero_point) * scale if scale else values


def _short(tensor: str) -> str:
    """A layer's name from a tensor's, e.g. `stage1.0.a.relu` from `model/stage1.0.a.relu_1/Relu;model/…`."""
    if tensor.startswith("StatefulPartitionedCall"):
        return "answer"
    parts = tensor.split(";", maxsplit=1)[0].split("/")
    return parts[-2].removesuffix("_1") if len(parts) > 1 else parts[0]


def _op_name(entry: Mapping[str, Any]) -> str:
    from tensorflow.lite.python.schema_py_generated import BuiltinOperator

    # Old files keep the code in another field than new ones.
    code = max(int(entry.get("builtin_code", 0)), int(entry.get("deprecated_builtin_code", 0)))
    return next((name for name, value in vars(BuiltinOperator).items() if value == code), str(code))


def check_report(path: Path) -> None:
    """Refuse a report that could not be written, before the work is done.

    Raises:
        ConfigError: its ending is neither .json nor .md.

    """
    if path.suffix not in {".json", ".md"}:
        msg = f"{path}: --report must end in .json or .md"
        raise ConfigError(msg)


def write_report(path: Path, models: Mapping[str, Sequence[LayerError]]) -> None:
    """Write the layers of each role as JSON or Markdown, by the file's ending.

    Raises:
        ConfigError: another ending.
        SourceError: the file cannot be written.

    """
    check_report(path)
    if path.suffix == ".json":
        text = json.dumps({role: [row.as_json() for row in rows] for role, rows in models.items()}, indent=1) + "\n"
    else:
        text = "".join(f"# {role}\n\n{markdown(rows)}\n" for role, rows in models.items())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        msg = f"{path}: {error.strerror}: give --report another place"
        raise SourceError(msg) from error


def markdown(rows: Sequence[LayerError]) -> str:
    """A table of layers in the order of computation, the one that adds most error in bold."""
    top = worst(rows)
    lines = [
        "| layer | operator | shape | SQNR dB | lost, mean channel | added here | RMS error, steps | scale |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        name = f"**{row.name}**" if row is top else row.name
        shape = "×".join(map(str, row.shape[1:]))
        lines.append(f"| {name} | {row.op} | {shape} | {row.sqnr_db:.1f} | {row.lost:.3%} | {row.added:.3%} | "
                     f"{row.steps:.2f} | {row.scale:.6g} |")  # fmt: skip
    return "\n".join(lines) + "\n"
