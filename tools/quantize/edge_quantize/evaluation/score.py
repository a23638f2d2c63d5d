"""Scoring an int8 model by the manifest, on the kernels on which every runtime gives the same bits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edge.bundle.model_check import check_model
from edge.errors import BundleError
from edge.inference import tflite
from edge.inference.tflite import runtime, to_int8

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from edge.types import F32, U8


def open_interpreter(model: Path | bytes, *, delegate: bool = False, keep: bool = False) -> Any:  # noqa: ANN401 - neither runtime ships types
    """Open a model file, or its bytes, in the runtime that a device's CPU takes, with one thread.

    Args:
        model: a .tflite file or its content.
        delegate: let the runtime take XNNPACK's kernels where it would by default, as a device does. They round
            otherwise than TFLite's own: up to 20 LSB of an output, and another expression for 1 face in 90. So
            figures and golden answers are made without them: then every runtime gives the same bits.
        keep: let every intermediate tensor be read after a run.

    Raises:
        BundleError: the file is missing or no TFLite model.
        BackendError: no runtime is installed.

    """
    where = "the converted model" if isinstance(model, bytes) else str(model)
    chosen = runtime()
    try:
        content = model if isinstance(model, bytes) else model.read_bytes()
        check_model(content)
        return tflite.open_interpreter(chosen, content, plain=not delegate, keep=keep)
    except (ValueError, OSError) as error:
        msg = f"{where}: not a TFLite model that can be run ({error})"
        raise BundleError(msg) from error


def quantisation(interpreter: Any) -> tuple[dict[str, Any], dict[str, Any]]:  # noqa: ANN401
    """Input and output of a model as the manifest states them: shape, dtype, scale, zero_point."""
    parts = []
    for detail in (interpreter.get_input_details()[0], interpreter.get_output_details()[0]):
        scale, zero_point = detail["quantization"]
        parts.append({"shape": [int(n) for n in detail["shape"]], "dtype": np.dtype(detail["dtype"]).name,
                      "scale": float(scale), "zero_point": int(zero_point)})  # fmt: skip
    return parts[0], parts[1]


def outputs(
    interpreter: Any,  # noqa: ANN401
    chips: U8,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> NDArray[np.int8]:
    """Raw int8 answers (N, K) for uint8 chips (N, 48, 48)."""
    source, sink = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]
    answers = np.empty((len(chips), *map(int, sink["shape"][1:])), np.int8)
    for row, chip in enumerate(to_int8(chips)):
        interpreter.set_tensor(source, chip[None])
        interpreter.invoke()
        answers[row] = interpreter.get_tensor(sink["index"])[0]
        if row % 64 == 0:
            progress(row, len(chips))
    progress(len(chips), len(chips))
    return answers


def probabilities(raw: NDArray[np.int8], scale: float = 1 / 256, zero_point: int = -128) -> F32:
    """Probabilities float32 (N, K) of raw int8 answers."""
    return ((raw.astype(np.float32) - zero_point) * scale).astype(np.float32)
