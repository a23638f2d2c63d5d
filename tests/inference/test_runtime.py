"""Which TFLite runtime runs: the faster one on the CPU, the one libedgetpu is built for beside it, or the one named."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from edge.bundle.golden import check_golden, golden_answers
from edge.bundle.manifest import load_bundle
from edge.errors import BackendError
from edge.inference.cpu import CpuBackend
from edge.inference.tflite import Choice, open_interpreter, runtime, runtime_name, to_int8
from edge.vision.detect.choose import judge
from tests.conftest import MATERIAL

ROLES = ("detector", "gate", "fer_unmasked", "fer_masked")


def installed(name: str) -> bool:
    try:
        __import__(name)
    except ImportError:
        return False
    return True


needs_both = pytest.mark.skipif(
    not (installed("tflite_runtime") and installed("ai_edge_litert")), reason="both runtimes: Python 3.11 has wheels"
)


@needs_both
def test_the_cpu_takes_litert_and_a_delegate_the_older_one() -> None:
    assert runtime().__name__ == "ai_edge_litert.interpreter"
    assert runtime(delegate=True).__name__ == "tflite_runtime.interpreter"
    assert runtime("litert", delegate=True).__name__ == "ai_edge_litert.interpreter"
    assert runtime_name(runtime("tflite")) == "tflite 2.14.0"
    assert runtime_name(runtime("litert")).startswith("litert 2.")


def test_what_is_missing_is_said_with_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tflite_runtime.interpreter", None)
    assert runtime(delegate=True).__name__ == "ai_edge_litert.interpreter"
    for version, says in (
        (
            (3, 11),
            r'"tflite" is not installed: in a clone: .venv/bin/pip install -e "\.\[tflite-runtime\]"; on a device',
        ),
        ((3, 13), r'"tflite" has no wheel for this Python: say "auto" or "litert"'),
    ):
        monkeypatch.setattr(sys, "version_info", version)
        with pytest.raises(BackendError, match=says):
            runtime("tflite")
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(
        BackendError, match=r'no TFLite runtime: in a clone: .venv/bin/pip install -e "\.\[device\]"; on a device: '
    ):
        runtime()


@needs_both
@pytest.mark.parametrize("choice", [c for c in get_args(Choice) if c != "auto"])
def test_golden_answers_hold_with_either(bundle_folder: Path, choice: Choice) -> None:
    bundle = load_bundle(bundle_folder)
    backend = CpuBackend(bundle, ROLES, choice=choice)
    check_golden(bundle, backend, ROLES, judge)
    assert backend.runtime.startswith(choice)


@needs_both
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core: one kernel thread in any case")
@pytest.mark.parametrize(("choice", "more"), [("litert", 1), ("tflite", 0)])
def test_only_the_newer_runtime_gets_a_second_thread(bundle_folder: Path, choice: Choice, more: int) -> None:
    bundle = load_bundle(bundle_folder)
    chips = golden_answers(bundle, ROLES[2:3])["fer_unmasked"][0][:1]
    tasks = Path("/proc/self/task")
    before = set(tasks.iterdir())
    backend = CpuBackend(bundle, ROLES[2:3], threads=2, choice=choice)
    backend.outputs("fer_unmasked", chips)
    assert len(set(tasks.iterdir()) - before) == more


@needs_both
def test_the_two_differ_by_a_rounding_at_most(bundle_folder: Path) -> None:
    bundle = load_bundle(bundle_folder)
    one, other = (CpuBackend(bundle, ROLES[1:], choice=c) for c in ("litert", "tflite"))
    for role, (chips, _) in golden_answers(bundle, ROLES[1:]).items():
        off = np.abs(one.outputs(role, chips).astype(int) - other.outputs(role, chips).astype(int))
        assert off.max() <= 2


@needs_both
@pytest.mark.skipif(platform.machine() != "x86_64", reason="kernels for ARM round otherwise")
@pytest.mark.parametrize("choice", ["litert", "tflite"])
def test_the_plain_kernels_give_the_bundle_s_own_bits_in_either(bundle_folder: Path, choice: Choice) -> None:
    """What the evaluation's figures and golden answers are made with."""
    bundle = load_bundle(bundle_folder)
    for role, (chips, wanted) in golden_answers(bundle, ROLES).items():
        interpreter = open_interpreter(runtime(choice), bundle.read(role), plain=True)
        (given,), (asked,) = interpreter.get_input_details(), interpreter.get_output_details()
        for one, answer in zip(to_int8(chips), wanted, strict=True):
            interpreter.set_tensor(given["index"], one[None])
            interpreter.invoke()
            np.testing.assert_array_equal(interpreter.get_tensor(asked["index"])[0], answer)


def test_a_device_runs_the_faster_kernels(bundle_folder: Path) -> None:
    """Told apart by their roundings: nothing else tells which kernels a model got."""
    bundle = load_bundle(bundle_folder)
    chips, wanted = golden_answers(bundle, ("detector",))["detector"]
    assert (CpuBackend(bundle, ("detector",), choice="litert").outputs("detector", chips) != wanted).any()


def test_a_named_runtime_that_is_missing_ends_the_service_with_a_line(tmp_path: Path, bundle_folder: Path) -> None:
    missing = tmp_path / "path" / "tflite_runtime"
    missing.mkdir(parents=True)
    (missing / "__init__.py").write_text("raise ImportError('not installed')\n")
    (tmp_path / "config.toml").write_text(
        f"""[device]
id = "kiosk-07"
site = "lobby"
purpose = "audience-statistics"
signage_acknowledged = true
[camera]
kind = "replay"
source = '{MATERIAL / "astronaut.png"}'
[models]
bundle = '{bundle_folder}'
runtime = "tflite"
[storage]
outbox = "outbox.db"
runtime = "run"
"""
    )
    path = os.pathsep.join(filter(None, [str(missing.parent), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-m", "edge", "vision", "--config", str(tmp_path / "config.toml")],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == BackendError.exit_code
    assert 'models.runtime = "tflite"' in done.stderr
    assert "Traceback" not in done.stderr
