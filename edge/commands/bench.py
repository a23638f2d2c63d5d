"""`edge bench`: how fast this device is, with the models and the detector that it runs with."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edge.bundle.golden import golden_answers
from edge.bundle.manifest import load_bundle
from edge.commands.demo.clip import compose
from edge.config import StorageSection
from edge.config.camera import CameraSection
from edge.inference.choose import open_backend
from edge.outbox.runtime_files import read_vision
from edge.process.stats import Percentiles
from edge.vision.detect.choose import chosen_kind, describe, judge
from edge.vision.model_roles import needed_roles
from edge.vision.service import Vision

if TYPE_CHECKING:
    from edge.config import Config

WARM: Final = 10
"""Invocations before the timed ones."""


def run_bench(config: Config, *, invocations: int = 200, frames: int = 120, as_json: bool = False) -> int:
    """Time each model on its golden inputs, then the whole chain on the demo's clip; print both. Returns 0.

    Raises BundleError, BackendError, SourceError.
    """
    backend, detector, models = time_models(config, invocations)
    rate, stages = time_chain(config, frames)
    if as_json:
        print(
            json.dumps({"backend": backend, "detector": detector, "invoke_ms": models, "fps": rate, "stage_ms": stages})
        )
        return 0
    print(f"{'on ' + backend:16}{'p50 ms':>8}{'p95 ms':>8}")
    for role, shares in models.items():
        print(f"{role:16}{shares['p50']:8.2f}{shares['p95']:8.2f}")
    spent = ", ".join(f"{stage} {ms:.1f}" for stage, ms in sorted(stages.items()))
    print(f"whole chain     {rate:8.1f} frames a second, detector {detector}; ms a frame: {spent}")
    return 0


def time_models(config: Config, invocations: int) -> tuple[str, str, dict[str, dict[str, float | None]]]:
    """Name of the backend, which detector runs on what, and ms of single invocations by role."""
    bundle = load_bundle(config.models.bundle, config.models.public_key)
    kind = chosen_kind(bundle, config.detector.kind)
    roles = needed_roles(bundle, config)
    backend = open_backend(bundle, roles, config.models.accelerator, judge, runtime=config.models.runtime)
    try:
        golden, found = golden_answers(bundle, roles), {}
        for role in roles:
            chips, times = golden[role][0], Percentiles()
            for n in range(WARM + invocations):
                one = chips[n % len(chips)][None]
                began = time.perf_counter()
                backend.outputs(role, one)
                if n >= WARM:
                    times.add(1000 * (time.perf_counter() - began))
            found[role] = {"p50": times.at(0.5), "p95": times.at(0.95)}
        return backend.name, describe(kind, backend.name), found
    finally:
        backend.close()  # a stick serves one process


def time_chain(config: Config, frames: int) -> tuple[float, dict[str, float]]:
    """Frames a second from decoding to tracks, and ms a frame of each stage, on at most `frames` frames of the clip."""
    with tempfile.TemporaryDirectory(prefix="edge-bench-") as name:
        folder = Path(name)
        changes = {
            "device": config.device.model_copy(update={"mode": "development"}),
            "camera": (CameraSection(kind="replay", source=str(folder / "clip.mp4")),),
            "storage": StorageSection(outbox=folder / "outbox.db", runtime=folder / "run"),
            "kill_switch": config.kill_switch.model_copy(update={"file": folder / "pause", "gpio": None}),
        }
        compose(folder / "clip.mp4")
        seen: list[float] = []

        def count(*_: object) -> None:
            seen.append(time.perf_counter())
            if len(seen) == frames:
                service.stop()

        service = Vision(config.model_copy(update=changes), on_frame=count)
        began = time.perf_counter()
        service.run()
        told = read_vision(folder / "run")
    verbose = told.development if told else None
    return len(seen) / (seen[-1] - began), verbose.stage_ms if verbose else {}
