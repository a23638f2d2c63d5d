"""TFLite on the CPU, in-process: LiteRT, or tflite-runtime where that is named or all there is."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from edge.bundle.flatbuffer import Malformed
from edge.bundle.model_check import check_model
from edge.errors import BackendError, BundleError
from edge.inference.tflite import check_signature, dequantise, open_interpreter, runtime, runtime_name, stated, to_int8

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge.bundle.manifest import Bundle, Tensor
    from edge.inference.tflite import Choice
    from edge.types import F32, U8

THREADS = {"detector": 1, "gate": 1}
"""Kernel threads of the roles that gain nothing from two where cores are busy: their layers are small, and threads wait
for each other (docs/decisions/0025). The expression nets take what they are given."""


class CpuBackend:
    """See `edge.inference.protocol.Backend`."""

    name = "cpu"

    def __init__(self, bundle: Bundle, roles: tuple[str, ...], threads: int = 2, choice: Choice = "auto") -> None:
        """Load the models of `roles`, each with at most `threads`, the cores there are, and what `THREADS` says.

        Raises BundleError when a file is no model of the manifest's signature.
        """
        threads = min(threads, len(os.sched_getaffinity(0)))  # on one core they would only wait for each other
        self.restarts = 0
        self._models: dict[str, tuple[Any, int, int, Tensor]] = {}
        chosen = runtime(choice)
        self.runtime = runtime_name(chosen)
        if self.runtime.startswith("tflite "):  # its threads spin while they wait: no net gains by a second
            threads = 1
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
                interpreter = open_interpreter(chosen, content, threads=min(threads, THREADS.get(role, threads)))
            except ValueError as error:
                msg = f"{path}: the TFLite runtime refuses this file ({error}): install the bundle again"
                raise BundleError(msg) from error
            given, asked = check_signature(str(path), interpreter, stated(entry.input), stated(entry.output))
            self._models[role] = interpreter, given, asked, entry.output

    def outputs(self, role: str, chips: U8) -> NDArray[np.int8]:
        """See `Backend.outputs`."""
        interpreter, given, asked, tensor = self._models[role]
        rows = []
        for one in to_int8(chips):
            interpreter.set_tensor(given, one[None])
            try:
                interpreter.invoke()
            except RuntimeError as error:
                msg = f"model {role} failed on the CPU: {error}"
                raise BackendError(msg) from error
            rows.append(interpreter.get_tensor(asked))
        return np.concatenate(rows) if rows else np.empty((0, *tensor.shape[1:]), np.int8)

    def probabilities(self, role: str, chips: U8) -> F32:
        """See `Backend.probabilities`."""
        return dequantise(self.outputs(role, chips), self._models[role][3])

    def attend(self) -> None:
        """Nothing fails here that could be mended."""

    def close(self) -> None:
        """Drop the interpreters."""
        self._models.clear()
