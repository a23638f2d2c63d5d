"""Golden answers: what a bundle's models must answer before they are used. A bundle that computes wrongly is not."""

from __future__ import annotations

import io
import platform
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from edge.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from edge.bundle.manifest import Bundle
    from edge.types import U8

    Judge = Callable[[Bundle, str, str, NDArray[np.int8], NDArray[np.int8]], None]
    """Compares outputs (N, …) of a role, computed on a backend, with golden ones; raises BundleError."""

GOLDEN_TOLERANCE: Final = {"cpu": 2, "cpu on arm": 6, "edgetpu": 6}
"""Largest difference to a golden answer, in output LSB. The answers are made on x86 with TFLite's plain kernels; those
for ARM round otherwise in each layer. Seen on golden chips, either runtime, x86 and ARM: 1 (docs/decisions/0006)."""
_ARM: Final = platform.machine().startswith(("aarch64", "arm"))


class Runner(Protocol):
    """What computes answers, handed in by whoever has it: any inference backend."""

    @property
    def name(self) -> str:
        """Which kernels it runs: `cpu`, `edgetpu` and so on."""
        ...

    def outputs(self, role: str, images: U8, /) -> NDArray[np.int8]:
        """Int8 outputs (N, …) of a role's model."""
        ...


def golden_answers(bundle: Bundle, roles: tuple[str, ...]) -> dict[str, tuple[U8, NDArray[np.int8]]]:
    """Inputs uint8 (N, 48, 48) or (N, 128, 128, 3), and int8 answers (N, …), of each role.

    Raises BundleError naming the file.
    """
    path, content = bundle.folder / bundle.manifest.golden, bundle.read_golden()
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as golden:
            answers = {role: (golden[f"{role}_chips"], golden[f"{role}_outputs"]) for role in roles}
    except Exception as error:  # numpy reads a damaged file with half a dozen kinds of error
        msg = f"{path}: {error}: install the bundle again"
        raise BundleError(msg) from error
    for role, (chips, wanted) in answers.items():
        entry = bundle.entry(role)
        side = entry.input.shape[1:3] if entry.input.shape[-1] == 1 else entry.input.shape[1:]
        if chips.dtype != np.uint8 or chips.shape[1:] != (*side,):
            msg = (
                f"{path}: chips of {role} are {chips.dtype} {chips.shape}, not uint8 (N, {', '.join(map(str, side))}): "
            )
            raise BundleError(msg + "install the bundle again")
        shape = len(chips), *entry.output.shape[1:]
        if not len(chips) or wanted.shape != shape or wanted.dtype != np.int8:
            msg = f"{path}: answers of {role} are {wanted.shape} for {len(chips)} chips: install the bundle again"
            raise BundleError(msg)
    return answers


def check_golden(bundle: Bundle, backend: Runner, roles: tuple[str, ...], judge: Judge) -> None:
    """Compute the bundle's golden answers and compare (`golden.npz`: `<role>_chips` u8, `<role>_outputs` int8).

    Raises BundleError naming the model and what is wrong.
    """
    for role, (chips, wanted) in golden_answers(bundle, roles).items():
        judge(bundle, role, backend.name, backend.outputs(role, chips), wanted)


def judge_answers(bundle: Bundle, role: str, backend: str, got: NDArray[np.int8], wanted: NDArray[np.int8]) -> None:
    """The `Judge` of a classifier's outputs (N, K).

    Raises BundleError naming the role and the largest difference when one answer is off by more than the
    backend's tolerance or has another argmax.
    """
    kernels = "edgetpu" if backend.startswith("edgetpu") else "cpu on arm" if _ARM else "cpu"
    tolerance = GOLDEN_TOLERANCE[kernels]
    off = int(np.abs(got.astype(np.int16) - wanted.astype(np.int16)).max(initial=0))
    flipped = int((got.argmax(axis=1) != wanted.argmax(axis=1)).sum())
    if off > tolerance or flipped:
        msg = (
            f"{bundle.path(role)}: computes wrongly on {backend}: {flipped} of {len(wanted)} golden answers "
            f"differ, largest difference {off} LSB (allowed {tolerance}): install the bundle again, "
            "or choose another accelerator"
        )
        raise BundleError(msg)
