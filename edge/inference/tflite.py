"""The TFLite runtime that is installed, every interpreter opened with it, and a check of its tensors.

Light: the worker imports it.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import numpy as np

from edge.errors import BackendError, BundleError, install

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from edge.bundle.manifest import Tensor
    from edge.types import F32, U8


class Signature(NamedTuple):
    """One input or output of a model: shape, dtype by name, per-tensor quantisation."""

    shape: tuple[int, ...]
    dtype: str
    scale: float
    zero_point: int


Choice = Literal["auto", "litert", "tflite"]
"""`models.runtime`: a runtime by its name, or whichever of the installed ones is better for the purpose."""
_MODULES: Final = {"litert": "ai_edge_litert.interpreter", "tflite": "tflite_runtime.interpreter"}
_INSTALL: Final = {
    "litert": install("device"),
    "tflite": f"{install('tflite-runtime')}; on a device: docs/operate.md, Accelerator",
}
_TFLITE_ENDS: Final = (3, 12)
"""Python from which on tflite-runtime 2.14, its last release, has no wheels."""


def runtime(choice: Choice = "auto", *, delegate: bool = False) -> Any:  # noqa: ANN401 - neither runtime ships types
    """The module with `Interpreter` and `load_delegate`.

    `auto` takes LiteRT, several times faster on a CPU; with `delegate`, tflite-runtime where it is installed, since
    Debian bookworm's libedgetpu is built for it. Raises BackendError with what to install.
    """
    order = (["tflite", "litert"] if delegate else ["litert", "tflite"]) if choice == "auto" else [choice]
    for name in order:
        with suppress(ImportError):
            return import_module(_MODULES[name])
    if choice == "auto":
        msg = f"no TFLite runtime: {_INSTALL['litert']}"
    else:
        msg = f'models.runtime = "{choice}" is not installed: {_INSTALL[choice]}'
        if choice == "tflite" and sys.version_info >= _TFLITE_ENDS:
            msg = 'models.runtime = "tflite" has no wheel for this Python: say "auto" or "litert"'
    raise BackendError(msg)


def open_interpreter(
    module: Any,  # noqa: ANN401
    content: bytes,
    *,
    threads: int = 1,
    plain: bool = False,
    keep: bool = False,
    delegates: Sequence[Any] = (),
) -> Any:  # noqa: ANN401
    """An interpreter with its tensors allocated; the only place that makes one.

    Args:
        module: the runtime, see `runtime`.
        content: the model, which `check_model` has passed: both runtimes crash on others.
        threads: of the kernels.
        plain: TFLite's own kernels where the runtime would take XNNPACK's. They give the same bits in every runtime,
            on x86 those of a bundle's golden answers; XNNPACK's, which a device runs, are 2 to 9 times faster and
            round otherwise.
        keep: let every intermediate tensor be read after a run; XNNPACK's are not kept.
        delegates: what takes operators off the kernels: an Edge TPU's.

    Raises:
        ValueError: the runtime refuses the model, and says why.

    """
    options: dict[str, Any] = {"experimental_preserve_all_tensors": True} if keep else {}
    if plain:
        options["experimental_op_resolver_type"] = module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    if delegates:
        options["experimental_delegates"] = list(delegates)
    try:
        interpreter = module.Interpreter(model_content=content, num_threads=threads, **options)
        interpreter.allocate_tensors()
    except RuntimeError as error:
        raise ValueError(str(error)) from error
    return interpreter


def runtime_name(module: Any) -> str:  # noqa: ANN401
    """What logs and `edge bench` call a runtime: `litert 2.3.0`."""
    name, package = next(
        (name, path.partition(".")[0]) for name, path in _MODULES.items() if module.__name__.startswith(path[:8])
    )
    with suppress(PackageNotFoundError):
        return f"{name} {version(package.replace('_', '-'))}"
    return name


def stated(tensor: Tensor) -> Signature:
    """What the manifest says of one tensor."""
    return Signature(tuple(tensor.shape), tensor.dtype, tensor.scale, tensor.zero_point)


def check_signature(file: str, interpreter: Any, *wanted: Signature) -> tuple[int, int]:  # noqa: ANN401 - untyped
    """Compare an interpreter's one input and one output with what the manifest states of them.

    Returns their tensor indices. Raises BundleError naming `file` and what differs.
    """
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    if len(inputs) != 1 or len(outputs) != 1:
        msg = f"{file}: has {len(inputs)} inputs and {len(outputs)} outputs, one of each is needed"
        raise BundleError(msg)
    for what, tensor, want in zip(("input", "output"), (*inputs, *outputs), wanted, strict=True):
        seen = tuple(int(n) for n in tensor["shape"]), tensor["dtype"].__name__
        if seen != want[:2]:
            msg = f"{file}: {what} is {seen}, the manifest says {want[:2]}"
            raise BundleError(msg)
        scale, zero = tensor["quantization"]
        if abs(scale - want.scale) > 1e-6 * abs(want.scale) or zero != want.zero_point:
            msg = f"{file}: {what} quantisation is ({scale}, {zero}), the manifest says {want[2:]}"
            raise BundleError(msg)
    return int(inputs[0]["index"]), int(outputs[0]["index"])


def dequantise(outputs: NDArray[np.int8], tensor: Tensor) -> F32:
    """Float32 of int8 outputs (N, K) of the tensor that the manifest describes."""
    widened = outputs.astype(np.int16) - tensor.zero_point
    return (widened * np.float32(tensor.scale)).astype(np.float32)


def to_int8(images: U8) -> NDArray[np.int8]:
    """Int8 model input, exactly u8 - 128, of uint8 chips (N, 48, 48) → (N, 48, 48, 1) or images (N, H, W, 3)."""
    flipped = (images ^ np.uint8(0x80)).view(np.int8)
    return flipped if flipped.ndim == 4 else flipped[..., None]
