"""Which TFLite runtime runs: the faster one on the CPU, the one libedgetpu is built for beside it, or the one named."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, get_args

import numpy as np
import pytest

from edge.bundle.golden import check_golden, golden_answers
from edge.bundle.manifest import load_bundle
from edge.errors import BackendError
from edge.inference.cpu import CpuBackend
from edge.inference.tflite import Choice, runtime, runtime_name
from edge.vision.detect.choose import judge

if TYPE_CHECKING:
    from pathlib import Path

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
    with pytest.raises(BackendError, match=r'"tflite" is not installed: pip install "edge-fer\[tflite-runtime\]"'):
        runtime("tflite")
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(BackendError, match=r'no TFLite runtime: pip install "edge-fer\[device\]"'):
        runtime()


@needs_both
@pytest.mark.parametrize("choice", [c for c in get_args(Choice) if c != "auto"])
def test_golden_answers_hold_with_either(bundle_folder: Path, choice: Choice) -> None:
    bundle = load_bundle(bundle_folder)
    backend = CpuBackend(bundle, ROLES, choice=choice)
    check_golden(bundle, backend, ROLES, judge)
    assert backend.runtime.startswith(choice)


@needs_both
def test_the_two_differ_by_a_rounding_at_most(bundle_folder: Path) -> None:
    bundle = load_bundle(bundle_folder)
    one, other = (CpuBackend(bundle, ROLES[1:], choice=c) for c in ("litert", "tflite"))
    for role, (chips, _) in golden_answers(bundle, ROLES[1:]).items():
        off = np.abs(one.outputs(role, chips).astype(int) - other.outputs(role, chips).astype(int))
        assert off.max() <= 2
