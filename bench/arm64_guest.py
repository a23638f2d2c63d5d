"""What `arm64.py` runs inside the emulator: one runtime's answers, then its instructions, each step between two marks.

    python bench/arm64_guest.py RUNTIME FOLDER

Reads FOLDER's `config.toml`, and `inputs.npz` and `clip.mp4` beside FOLDER, where there is no clip answers only; writes
`answers.npz` and `steps.json` into it. The emulator's plugin writes the counters to standard error.
"""

from __future__ import annotations

import ctypes
import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Final
from unittest import mock

import cv2
import numpy as np

from edge import config as settings
from edge.bundle.manifest import load_bundle
from edge.inference.cpu import CpuBackend
from edge.vision import figures, service

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge.types import Frame, Track

MARK: Final = 9999
"""The system call that `arm64.c` knows."""
ROLES: Final = ("detector", "gate", "fer_unmasked", "fer_masked")
"""As in `material`, which is not imported: what runs emulated imports the appliance alone."""
WARM_FRAMES: Final = 4
FPS: Final = 8
"""Of the clip."""


class Counter:
    """Marks, and what the instructions since the one before belong to."""

    def __init__(self) -> None:
        self._call = ctypes.CDLL(None).syscall
        self.steps: list[str] = []

    def mark(self, step: str) -> None:
        """Book the instructions since the last mark to `step`; "" for none."""
        self.steps.append(step)
        self._call(MARK, len(self.steps) - 1)


def chain(counter: Counter, folder: Path) -> None:
    """The vision service on the clip: a step of each frame, from asking for it to its tracks and windows.

    What it does once a second it does by the film's seconds: an emulated frame takes some of ours.
    """
    frames = 0
    film = SimpleNamespace(monotonic=lambda: frames / FPS, perf_counter=time.perf_counter, sleep=time.sleep)

    def seen(_: Frame, tracks: Sequence[Track]) -> None:
        nonlocal frames
        counter.mark(f"chain {len(tracks)}" if frames >= WARM_FRAMES else "")
        frames += 1

    with mock.patch.object(figures, "time", film), mock.patch.object(service, "time", film):
        service.Vision(settings.load(folder / "config.toml"), on_frame=seen).run()


def decoding(counter: Counter, folder: Path) -> None:
    """What reading the clip costs of that: a camera does without."""
    capture = cv2.VideoCapture(str(folder.parent / "clip.mp4"))
    counter.mark("")
    for number in range(1_000_000):
        if not capture.read()[0]:
            break
        counter.mark("decode" if number >= WARM_FRAMES else "")


def main() -> int:
    """Answer and count."""
    runtime, folder = sys.argv[1], Path(sys.argv[2])
    cv2.setNumThreads(1)
    bundle = load_bundle(settings.load(folder / "config.toml").models.bundle)
    backend = CpuBackend(bundle, ROLES, threads=1, choice=runtime)  # type: ignore[arg-type]  # named on the command line
    counter = Counter()
    counter.mark("")
    counter.mark("mark")
    answers = {}
    with np.load(folder.parent / "inputs.npz") as inputs:
        for role in ROLES:
            chips = inputs[role]
            backend.outputs(role, chips[:1])
            counter.mark("")
            rows = []
            for one in chips:
                rows.append(backend.outputs(role, one[None])[0])
                counter.mark(role)
            answers[role] = np.stack(rows)
    np.savez(folder / "answers.npz", **answers)
    if (folder.parent / "clip.mp4").exists():
        chain(counter, folder)
        decoding(counter, folder)
    (folder / "steps.json").write_text(
        json.dumps({"runtime": backend.runtime, "numpy": np.__version__, "steps": counter.steps}), encoding="utf-8"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
