"""TFLite on the CPU, in-process: tflite-runtime, or LiteRT where that is what installs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from edge.backend.flatbuffer import Malformed
from edge.backend.model_check import check_model
from edge.errors import BackendError, BundleError
from edge.figures import Percentiles
from edge.preprocess import to_int8

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge.bundle import Bundle
    from edge.types import F32, U8


def interpreter_class() -> Any:  # noqa: ANN401 - neither runtime ships types
    """The TFLite interpreter class that is installed. Raises BackendError with what to install."""
    try:
        from tflite_runtime.interpreter import Interpreter
    except ImportError:
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            msg = (
                'no TFLite runtime: pip install "edge-fer[device]" (tflite-runtime, or ai-edge-litert on Python ≥ 3.12)'
            )
            raise BackendError(msg) from error
    return Interpreter


class CpuBackend:
    """See `edge.backend.base.Backend`."""

    name = "cpu"

    def __init__(self, bundle: Bundle, roles: tuple[str, ...], threads: int = 2) -> None:
        """Load the models of `roles`. Raises BundleError when a file is no model of the manifest's signature."""
        self.invoke = Percentiles()
        self.restarts = 0
        self._models: dict[str, tuple[Any, int, int, float, int]] = {}
        make = interpreter_class()
        for role in roles:
            entry, path = bundle.entry(role), bundle.path(role)
            content = bundle.read(role)
            try:
                check_model(content)
            except Malformed as error:
                msg = f"{path}: no model that can be run: {error}: install the bundle again"
                raise BundleError(msg) from error
            try:
                # The bytes that were checked, not the file once more.
                interpreter = make(model_content=content, num_threads=threads)
                interpreter.allocate_tensors()
            except (ValueError, RuntimeError) as error:
                msg = f"{path}: the TFLite runtime refuses this file ({error}): install the bundle again"
                raise BundleError(msg) from error
            inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
            if len(inputs) != 1 or len(outputs) != 1:
                msg = f"{path}: has {len(inputs)} inputs and {len(outputs)} outputs, one of each is needed"
                raise BundleError(msg)
            (given,), (asked,) = inputs, outputs
            for what, tensor, stated in (("input", given, entry.input), ("output", asked, entry.output)):
                seen = tuple(int(n) for n in tensor["shape"]), np.dtype(tensor["dtype"]).name
                if seen != (tuple(stated.shape), stated.dtype):
                    msg = f"{path}: {what} is {seen}, the manifest says {(tuple(stated.shape), stated.dtype)}"
                    raise BundleError(msg)
                scale, zero = tensor["quantization"]
                if not np.isclose(scale, stated.scale, rtol=1e-6) or zero != stated.zero_point:
                    msg = (
                        f"{path}: {what} quantisation is ({scale}, {zero}), "
                        f"the manifest says ({stated.scale}, {stated.zero_point})"
                    )
                    raise BundleError(msg)
            self._models[role] = (
                interpreter,
                given["index"],
                asked["index"],
                entry.output.scale,
                entry.output.zero_point,
            )

    def outputs(self, role: str, chips: U8) -> NDArray[np.int8]:
        """See `Backend.outputs`."""
        interpreter, given, asked, _, _ = self._models[role]
        rows = []
        for one in to_int8(chips):
            began = time.perf_counter()
            interpreter.set_tensor(given, one[None])
            try:
                interpreter.invoke()
            except RuntimeError as error:
                msg = f"model {role} failed on the CPU: {error}"
                raise BackendError(msg) from error
            rows.append(interpreter.get_tensor(asked)[0])
            self.invoke.add(1000 * (time.perf_counter() - began))
        width = len(rows[0]) if rows else 0
        return np.stack(rows) if rows else np.empty((0, width), np.int8)

    def probabilities(self, role: str, chips: U8) -> F32:
        """See `Backend.probabilities`."""
        _, _, _, scale, zero = self._models[role]
        widened = self.outputs(role, chips).astype(np.int16) - zero
        return (widened * np.float32(scale)).astype(np.float32)

    def close(self) -> None:
        """Drop the interpreters."""
        self._models.clear()
