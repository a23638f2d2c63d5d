"""Which Edge TPUs are listed, by whom they are opened, and what `models.accelerator` makes of it."""

from __future__ import annotations

import logging
import os
import re
from typing import TYPE_CHECKING

import pytest

from edge.bundle.manifest import load_bundle
from edge.errors import BackendError, BundleError
from edge.inference import coral
from edge.inference.choose import open_backend
from edge.inference.cpu import CpuBackend
from edge.vision.detect.choose import judge
from tests.support.edgetpu import QUICK, check

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edge.inference.edgetpu import EdgeTpuBackend
    from edge.types import U8
    from tests.support.edgetpu import Answers, StandIn


def test_both_usb_ids_and_pcie_are_listed(tpus: StandIn) -> None:
    assert coral.list_devices() == []
    fresh, loaded = tpus.plug("1-1.2", "1a6e:089a"), tpus.plug("1-1.3", "18d1:9302")
    tpus.plug("1-1.4", "046d:0825")  # a webcam
    (tpus.plug("1-1.5") / "idProduct").unlink()  # vanishing
    (tpus.sysfs / "class/apex/apex_0").mkdir(parents=True)
    assert coral.list_devices() == [
        coral.Device("usb", str(fresh), "id 1a6e:089a, 5000 Mbit/s"),
        coral.Device("usb", str(loaded), "id 18d1:9302, 5000 Mbit/s"),
        coral.Device("pci", "/dev/apex_0", "driver apex"),
    ]


PYCORAL = {
    "__init__.py": "",
    "utils/__init__.py": "",
    "utils/edgetpu.py": """
from tflite_runtime.interpreter import load_delegate
def load_edgetpu_delegate(options=None):
    return load_delegate("libedgetpu.so.1", options or {})
def list_edge_tpus():
    return [{listed}]
""",
    "adapters/__init__.py": "",
    "adapters/common.py": """
import os
def set_input(interpreter, data):
    open(os.environ["STANDIN_LOG"], "a").write(f"{os.getpid()} adapter set_input\\n")
    interpreter.tensor(interpreter.get_input_details()[0]["index"])()[0][:, :] = data
def output_tensor(interpreter, i):
    return interpreter.tensor(interpreter.get_output_details()[i]["index"])()
""",
}
"""The parts of pycoral 2.0 that are used, with its behaviour: https://github.com/google-coral/pycoral."""


@pytest.mark.parametrize("listed", [True, False])
def test_pycoral_is_used_where_it_imports(
    listed: bool,  # noqa: FBT001 - a parameter of the test
    *,
    tpus: StandIn,
    opened: Callable[..., EdgeTpuBackend],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    chips: U8,
    right: Answers,
    caplog: pytest.LogCaptureFixture,
) -> None:
    pytest.importorskip("tflite_runtime", reason="pycoral needs tflite-runtime")
    place = tpus.plug()
    other = {"type": "usb", "path": "/sys/elsewhere"}
    tpu_list = f"{other}, {{'type': 'usb', 'path': '{place}'}}" if listed else ""
    for name, text in PYCORAL.items():
        path = tmp_path / "double" / "pycoral" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("{listed}", tpu_list))
    path_before = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(tmp_path / "double"), path_before])))
    backend = opened()
    if listed:
        assert tpus.seen("create")[0][1] == "usb:1", "libedgetpu's own count"
        check(backend, chips, right)
        assert len(tpus.seen("adapter")) == len(tpus.seen("invoke"))
    else:
        assert re.search("reason=.*does not list .*check cable", caplog.text)
        assert tpus.seen("create") == []


# ---- what is chosen


def test_what_is_asked_for_decides(
    tpus: StandIn, compiled_bundle: Path, bundle_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    tpus.tell("refuse")
    plain, bundle = load_bundle(bundle_folder), load_bundle(compiled_bundle)
    assert open_backend(bundle, ("gate",), "cpu", judge).name == "cpu"
    assert 'chosen=cpu reason="so configured"' in caplog.text
    assert isinstance(open_backend(plain, ("gate",), "auto", judge), CpuBackend)
    assert 'chosen=cpu reason="the bundle\'s gate is not compiled for the Edge TPU"' in caplog.text
    with pytest.raises(BundleError, match="no model of role gate is compiled"):
        open_backend(plain, ("gate",), "edgetpu", judge)
    with pytest.raises(BackendError, match=r"none works \(no Edge TPU on USB or PCIe") as caught:
        open_backend(bundle, ("gate",), "edgetpu", judge, QUICK)
    assert caught.value.exit_code == 69
    tpus.plug()
    with pytest.raises(BackendError, match=r"none works .*told to refuse"):
        open_backend(bundle, ("gate",), "edgetpu", judge, QUICK)
    assert len(tpus.seen("create")) == QUICK.failures
    tpus.tell("ok")
    backend = open_backend(bundle, ("gate",), "edgetpu", judge, QUICK)
    assert backend.name == "edgetpu"
    assert re.search('edgetpu_ready .*runtime="(tflite|litert) 2', caplog.text), "the worker says what it runs with"
    backend.close()


def test_without_the_library_it_says_what_to_install(
    tpus: StandIn,
    opened: Callable[..., EdgeTpuBackend],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    tpus.plug()
    monkeypatch.delenv("LD_LIBRARY_PATH")
    assert opened().name == "cpu:fallback"
    assert re.search("reason=.*libedgetpu.so.1 cannot be loaded .*install libedgetpu1-std", caplog.text)
