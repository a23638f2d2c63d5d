"""Scoring an int8 model with a bare TFLite interpreter and what the manifest says, nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edge.bundle.model_check import check_model
from edge.errors import BundleError
from edge.inference.tflite import to_int8

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from edge.types import F32, U8


def open_interpreter(model: Path | bytes, *, delegate: bool = False, keep: bool = False) -> Any:  # noqa: ANN401 - three runtimes, one interface
    """Open a model file, or its bytes, in whichever TFLite runtime is installed.

    Args:
        model: a .tflite file or its content.
        delegate: let the runtime use XNNPACK where it would by default. It rounds otherwise than TFLite's own kernels
            (up to 11 LSB of an output were seen), so figures and golden answers are made without it: then every runtime
            gives the same bits.
        keep: let every intermediate tensor be read after a run.

    Raises:
        BundleError: the file is missing or no TFLite model, or no runtime is installed.

    """
    try:
        from tflite_runtime import interpreter as runtime
    except ImportError:
        try:
            from ai_edge_litert import interpreter as runtime
        except ImportError:
            try:
                from tensorflow.lite.python import interpreter as runtime
            except ImportError as error:
                msg = "no TFLite runtime: install the extra 'edge-fer[device]' or 'edge-fer[host]'"
                raise BundleError(msg) from error
    what: dict[str, Any] = {"experimental_preserve_all_tensors": True} if keep else {}
    if not delegate:
        what["experimental_op_resolver_type"] = runtime.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    try:
        content = model if isinstance(model, bytes) else model.read_bytes()
        check_model(content)
        interpreter = runtime.Interpreter(num_threads=1, model_content=content, **what)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError, OSError) as error:
        where = "the converted model" if isinstance(model, bytes) else str(model)
        msg = f"{where}: not a TFLite model that can be run ({error})"
        raise BundleError(msg) from error
    return interpreter


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
