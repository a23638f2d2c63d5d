"""Everything that knows Coral hardware: which Edge TPUs are there, and a model on one of them.

Only the worker process calls `open_model`, since libedgetpu may abort or hang its caller. `list_devices` reads sysfs
and is harmless anywhere. Ids: https://coral.ai/docs/accelerator/get-started/ (1a6e:089a until the first use has loaded
the firmware, 18d1:9302 after); PCIe: the `apex` driver's class.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from edge.errors import BackendError
from edge.inference.tflite import Signature, check_signature, open_interpreter, runtime, runtime_name

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from edge.inference.tflite import Choice

    Run = Callable[[NDArray[np.generic]], NDArray[np.generic]]
    """One input of the model's shape without the batch, to its output without the batch."""

SYSFS = Path("/sys")
USB_IDS: Final = {"1a6e:089a", "18d1:9302"}
LIBRARY: Final = "libedgetpu.so.1"


class Device(NamedTuple):
    """An Edge TPU: `usb` or `pci`, its place in libedgetpu's words, and what the kernel says of it."""

    kind: str
    path: str
    detail: str


def list_devices() -> list[Device]:
    """Edge TPUs that the kernel shows, on USB (both ids) and PCIe. No library is loaded, nothing is opened."""
    found = []
    for place in sorted((SYSFS / "bus/usb/devices").glob("*")):
        ids = f"{_text(place / 'idVendor')}:{_text(place / 'idProduct')}"
        if ids in USB_IDS:
            found.append(Device("usb", str(place), f"id {ids}, {_text(place / 'speed') or '?'} Mbit/s"))
    found += [Device("pci", f"/dev/{p.name}", "driver apex") for p in sorted((SYSFS / "class/apex").glob("apex_*"))]
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):  # unplugged this moment
        return ""


def option(device: Device, number: int) -> str:
    """The delegate's option for a device, the `number`-th of its kind in sysfs: `usb:0`.

    libedgetpu counts in an order of its own; where pycoral is installed its list says which. Elsewhere two sticks may
    be swapped, which changes nothing: every one has a worker.
    """
    try:
        from pycoral.utils.edgetpu import list_edge_tpus
    except ImportError:
        return f"{device.kind}:{number}"
    same = [tpu["path"] for tpu in list_edge_tpus() if tpu["type"] == device.kind]
    if device.path in same:
        return f"{device.kind}:{same.index(device.path)}"
    if number < len(same):
        return f"{device.kind}:{number}"
    msg = f"{LIBRARY} does not list {device.path} ({device.detail}): {_MEND}"
    raise BackendError(msg)


_MEND: Final = "check cable, power and the udev rule that gives this user the device (docs/hardware.md)"


def open_model(
    file: str, content: bytes, device: str, wanted: tuple[Signature, Signature], choice: Choice = "auto"
) -> Run:
    """A compiled model on one Edge TPU, through pycoral where it imports, else the runtime's own delegate.

    Args:
        file: its name, for errors.
        content: the model.
        device: the delegate's option, see `option`.
        wanted: input and output as the manifest states them.
        choice: `models.runtime`.

    Raises:
        BackendError: no library, no device, or a model that the pair of runtime and library refuses.
        BundleError: the model is not what the manifest states.

    """
    chosen = runtime(choice, delegate=True)
    try:
        from pycoral.adapters import common
        from pycoral.utils.edgetpu import load_edgetpu_delegate
    except ImportError:
        common, load_edgetpu_delegate = None, partial(chosen.load_delegate, LIBRARY)
    try:
        delegate = load_edgetpu_delegate({"device": device})
    except OSError as error:
        msg = f"{LIBRARY} cannot be loaded ({error}): install libedgetpu1-std built for this runtime (docs/hardware.md)"
        raise BackendError(msg) from error
    except ValueError as error:  # the library returned no delegate
        msg = f"{LIBRARY} opens no device {device} ({error}): {_MEND}"
        raise BackendError(msg) from error
    try:
        interpreter = open_interpreter(chosen, content, delegates=[delegate])
    except ValueError as error:
        by = runtime_name(chosen)
        msg = (
            f"{file}: refused on {device} by {by} ({error}): compile the bundle again, or install a {LIBRARY} that fits"
        )
        raise BackendError(msg) from error
    given, asked = check_signature(file, interpreter, *wanted)

    def run(one: NDArray[np.generic]) -> NDArray[np.generic]:
        if common is None:
            interpreter.set_tensor(given, one[None])
        else:
            common.set_input(interpreter, one)
        interpreter.invoke()
        out = interpreter.get_tensor(asked) if common is None else common.output_tensor(interpreter, 0)
        answer: NDArray[np.generic] = out[0].copy()  # pycoral's is a view; one that lives forbids the next invocation
        return answer

    return run
