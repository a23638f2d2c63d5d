"""A stand-in Edge TPU for tests: a delegate built from `edgetpu.c`, a bundle "compiled" for it, a sysfs with it."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edge.bundle.flatbuffer import read_model
from edge.inference.coral import LIBRARY
from edge.inference.edgetpu import EdgeTpuBackend, Patience

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge.inference.tflite import Choice
    from edge.types import U8

    Answers = NDArray[np.int_]

COMPILER = shutil.which("cc") or shutil.which("gcc")
SAME: Final[Choice] = "tflite" if find_spec("tflite_runtime") else "litert"
"""The runtime that the Edge TPU's worker takes by itself: on it the CPU computes the stand-in's own bits."""
SOURCE = Path(__file__).with_suffix(".c")
CUSTOM_OP = "edgetpu-custom-op"
CUSTOM, SOFTMAX, RESHAPE = 32, 25, 22
"""Builtin operator codes of TensorFlow's schema.fbs."""
LONG = 60.0
"""Nothing here is about speed."""
QUICK = Patience(start_s=LONG, invoke_s=LONG, retry_s=0.01, return_s=0.1, check_s=1e6)


class StandIn:
    """TPUs in `folder`: `environment` makes a process find their library and obey what they were told last."""

    def __init__(self, folder: Path, library: Path) -> None:
        self.sysfs = folder / "sys"
        self._control, self._log = folder / "control", folder / "log"
        self.environment = {
            "LD_LIBRARY_PATH": str(library.parent),
            "STANDIN_CONTROL": str(self._control),
            "STANDIN_LOG": str(self._log),
        }
        self.tell("ok")

    def tell(self, word: str) -> None:
        """How to behave from now on, see `edgetpu.c`; replaced at once, so that nobody reads half a word."""
        fresh = self._control.with_suffix(".new")
        fresh.write_text(word)
        fresh.replace(self._control)

    def plug(self, port: str = "2-1", ids: str = "1a6e:089a") -> Path:
        """Show a stick at a USB port; returns the device's folder."""
        place = self.sysfs / "bus" / "usb" / "devices" / port
        place.mkdir(parents=True)
        for name, text in zip(("idVendor", "idProduct", "speed"), (*ids.split(":"), "5000"), strict=True):
            (place / name).write_text(f"{text}\n")
        return place

    def seen(self, what: str) -> list[tuple[int, str]]:
        """(process id, device) of each `create` or `invoke`, in order."""
        lines = [line.split() for line in self._log.read_text().splitlines()] if self._log.exists() else []
        return [(int(pid), device) for pid, word, device in lines if word == what]


def build_library(folder: Path) -> Path:
    """The stand-in under libedgetpu's name."""
    library = folder / LIBRARY
    flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run([str(COMPILER), *flags, "-o", str(library), str(SOURCE), "-lm"], check=True, timeout=120)
    return library


def compile_model(content: bytes, builtin: int) -> bytes:
    """The same model with a builtin operator made the Edge TPU's custom op: no runtime runs it without a delegate.

    A new operator code is appended, and the builtin's entry in the list of codes is pointed to it.
    """
    codes = read_model(content)["operator_codes"]
    (turned,) = (n for n, code in enumerate(codes) if code.get("builtin_code") == builtin)
    data = bytearray(content) + bytes(-len(content) % 8)

    def u32(at: int) -> int:
        return int(struct.unpack_from("<I", data, at)[0])

    model = u32(0)
    vtable = model - struct.unpack_from("<i", data, model)[0]
    field = model + struct.unpack_from("<H", data, vtable + 4 + 2 * 1)[0]  # operator_codes is the second field
    entry = field + u32(field) + 4 + 4 * turned
    name = CUSTOM_OP.encode()
    # vtable (12 bytes): its size, the table's, then where each field lies in the table; then the table, then the text
    table = len(data) + 12
    data += struct.pack("<6H", 12, 20, 16, 4, 8, 12)
    data += struct.pack("<iIiib3x", 12, 16, 1, CUSTOM, CUSTOM)
    data += struct.pack("<I", len(name)) + name + bytes(4 - len(name) % 4)
    struct.pack_into("<I", data, entry, table - entry)
    return bytes(data)


def compile_bundle(source: Path, folder: Path) -> Path:
    """A copy of a bundle with a compiled model beside each one, recorded in the manifest."""
    folder.mkdir()
    manifest: dict[str, Any] = json.loads((source / "manifest.json").read_text())
    shutil.copy(source / manifest["golden"], folder)
    for entry in manifest["models"]:
        content = (source / entry["file"]).read_bytes()
        (folder / entry["file"]).write_bytes(content)
        compiled = compile_model(content, RESHAPE if entry["role"] == "detector" else SOFTMAX)
        entry["edgetpu"] = entry["file"].replace(".tflite", "_edgetpu.tflite")
        entry["edgetpu_sha256"] = hashlib.sha256(compiled).hexdigest()
        (folder / entry["edgetpu"]).write_bytes(compiled)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def until(backend: EdgeTpuBackend, name: str) -> None:
    """Let the backend attend to its devices until it bears this name."""
    end = time.monotonic() + LONG
    while backend.name != name:
        assert time.monotonic() < end, f"{backend.name}, not {name}: {backend.trouble}"
        backend.attend()
        time.sleep(0.01)


def check(backend: EdgeTpuBackend, chips: U8, right: Answers) -> None:
    """All chips are answered, and rightly."""
    assert np.abs(backend.outputs("gate", chips).astype(int) - right).max() <= 1
