"""A bundle that is damaged, inconsistent or computes wrongly is refused, by the name of the file."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edge.bundle.golden import check_golden, golden_answers, judge_answers
from edge.bundle.manifest import load_bundle
from edge.bundle.newest import newest_bundle
from edge.errors import BundleError
from edge.inference.cpu import CpuBackend
from tests.support.bundles import restate_golden

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def copy(bundle_folder: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    folder.mkdir()
    for path in bundle_folder.iterdir():
        if path.suffix in {".json", ".npz", ".tflite"}:
            shutil.copy(path, folder)
            (folder / path.name).chmod(0o644)
    return folder


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def start(folder: Path, role: str = "gate") -> None:
    bundle = load_bundle(folder)
    backend = CpuBackend(bundle, (role,), threads=1)
    check_golden(bundle, backend, (role,), judge_answers)


def test_the_bundle_itself_starts(copy: Path) -> None:
    for role in load_bundle(copy).roles:
        start(copy, role)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda m: m["models"][0].update(sha256="0" * 64), "gate_int8.tflite: sha256"),
        (lambda m: m["models"][0]["input"].update(shape=[1, 64, 64, 1]), "gate_int8.tflite: input"),
        (lambda m: m["models"][0]["input"].update(dtype="uint8"), "gate_int8.tflite: input"),
        (lambda m: m["models"][0]["input"].update(scale=0.00784), "input quantisation of gate"),
        (lambda m: m["models"][0]["output"].update(zero_point=0), "gate_int8.tflite: output quantisation"),
        (lambda m: m["models"][0].update(labels=["masked", "unmasked"]), "labels of gate"),
        (lambda m: m["models"][1]["output"].update(shape=[1, 8]), "output of fer_unmasked"),
        (lambda m: m["models"].append(m["models"][0]), "roles are not unique"),
        (lambda m: m["models"].pop(0), "no model for role gate"),
        (lambda m: m["preprocess"].update(id="gray64/1"), "gray64/1"),
        (lambda m: m.update(schema="edge.bundle/2"), "schema"),
        (lambda m: m.pop("golden"), "golden"),
        (lambda m: m["models"][0].update(file="../gate.tflite"), "file"),
        (lambda m: m["models"][0].update(file="gate\0.tflite"), "models.0.file"),
        (lambda m: m["models"][0].update(file="/etc/hostname"), "models.0.file"),
        (lambda m: m["models"][0].update(file=".."), "models.0.file"),
        (lambda m: m["models"][0].update(file="a\x1b[2J\u202e.tflite"), "models.0.file"),
        (lambda m: m["models"][0].update(file="x" * 300), "models.0.file"),
        (lambda m: m["models"][0].update(edgetpu="gate\0.tflite"), "models.0.edgetpu"),
        (lambda m: m["models"][0].update(source="../gate.keras"), "models.0.source"),
        (lambda m: m.update(golden="a\0"), "golden"),
        (lambda m: m["models"][0].update(params=10**400), "params"),
        (lambda m: m["models"][0]["input"].update(scale=10**400), "scale"),
        (lambda m: m["models"][0].update(file="gone.tflite"), "gone.tflite: No such file"),
        (lambda m: m.update(golden="gone.npz"), "gone.npz"),
    ],
)
def test_a_wrong_manifest_is_refused(copy: Path, change: Callable[[dict[str, Any]], object], says: str) -> None:
    edit(copy, change)
    with pytest.raises(BundleError) as caught:
        start(copy)
    assert says in str(caught.value)
    assert str(copy) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe"])
def test_a_manifest_that_is_none(copy: Path, content: bytes) -> None:
    (copy / "manifest.json").write_bytes(content)
    with pytest.raises(BundleError, match=r"manifest\.json"):
        load_bundle(copy)


def test_one_flipped_bit_of_a_model_is_seen(copy: Path) -> None:
    path = copy / "gate_int8.tflite"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleError, match=r"gate_int8\.tflite: sha256"):
        load_bundle(copy)


def test_a_truncated_model_is_seen_before_the_runtime_reads_it(copy: Path) -> None:
    """The runtime itself would crash on it."""
    path = copy / "gate_int8.tflite"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(BundleError, match=r"gate_int8\.tflite: sha256"):
        load_bundle(copy)


def test_a_file_that_is_no_model_is_refused(copy: Path) -> None:
    path = copy / "gate_int8.tflite"
    path.write_bytes(b"not a model at all")
    edit(copy, lambda m: m["models"][0].update(sha256=hashlib.sha256(path.read_bytes()).hexdigest()))
    with pytest.raises(BundleError, match=r"gate_int8\.tflite: no model that can be run: byte 4: .*TFL3"):
        start(copy)


def test_a_wrong_golden_answer_is_refused(copy: Path) -> None:
    with np.load(copy / "golden.npz") as golden:
        arrays = dict(golden)
    arrays["gate_outputs"] = arrays["gate_outputs"][:, ::-1]
    np.savez(copy / "golden.npz", **arrays)
    restate_golden(copy)
    with pytest.raises(BundleError, match=r"gate_int8\.tflite: computes wrongly"):
        start(copy)


@pytest.mark.parametrize(
    ("arm", "off", "right"), [(False, 2, True), (False, 3, False), (True, 6, True), (True, 7, False)]
)
def test_kernels_for_arm_may_round_otherwise(
    monkeypatch: pytest.MonkeyPatch, copy: Path, *, arm: bool, off: int, right: bool
) -> None:
    monkeypatch.setattr("edge.bundle.golden._ARM", arm)
    bundle, wanted = load_bundle(copy), np.array([[100, -100]], np.int8)
    with nullcontext() if right else pytest.raises(BundleError, match=f"difference {off} LSB"):
        judge_answers(bundle, "gate", "cpu", wanted - np.int8(off), wanted)


@pytest.mark.parametrize(
    ("array", "wrong"),
    [
        ("gate_chips", lambda chips: chips.astype(np.float32)),
        ("gate_chips", lambda chips: chips[:, :32, :32]),
        ("gate_chips", lambda chips: chips[..., None]),
        ("gate_outputs", lambda answers: answers.astype(np.float64)),
        ("detector_chips", lambda chips: chips[..., 0]),
    ],
)
def test_golden_chips_of_another_kind_are_refused_by_name(copy: Path, array: str, wrong: Callable[..., Any]) -> None:
    with np.load(copy / "golden.npz") as golden:
        arrays = dict(golden)
    arrays[array] = wrong(arrays[array])
    np.savez(copy / "golden.npz", **arrays)
    restate_golden(copy)
    bundle = load_bundle(copy)
    with pytest.raises(BundleError, match=r"golden\.npz: .*install the bundle again"):
        golden_answers(bundle, ("gate", "detector"))


@pytest.mark.parametrize("cut", ["empty", "half", "bit", "no answers"])
def test_a_damaged_golden_file_is_refused_by_name(copy: Path, cut: str) -> None:
    path = copy / "golden.npz"
    content = bytearray(path.read_bytes())
    if cut == "empty":
        content.clear()
    elif cut == "half":
        del content[len(content) // 2 :]
    elif cut == "bit":
        content[200] ^= 0x10
    path.write_bytes(content)
    if cut == "no answers":
        np.savez(path, gate_chips=np.zeros((0, 48, 48), np.uint8), gate_outputs=np.zeros((0, 2), np.int8))
    restate_golden(copy)
    with pytest.raises(BundleError, match=r"golden\.npz"):
        start(copy)


@pytest.mark.parametrize("name", ["manifest.json", "gate_int8.tflite", "golden.npz"])
def test_a_link_out_of_the_bundle_is_not_followed(copy: Path, tmp_path: Path, name: str) -> None:
    outside = (copy / name).rename(tmp_path / "outside")
    (copy / name).symlink_to(outside)
    with pytest.raises(BundleError, match=f"{name}: is a link out of the bundle"):
        load_bundle(copy)


@pytest.mark.parametrize("name", ["manifest.json", "gate_int8.tflite"])
def test_a_pipe_or_a_device_is_not_read(copy: Path, name: str) -> None:
    (copy / name).unlink()
    os.mkfifo(copy / name)
    with pytest.raises(BundleError, match=f"{name}: is no regular file"):
        load_bundle(copy)
    (copy / name).unlink()
    (copy / name).symlink_to(name)
    with pytest.raises(BundleError, match=name):
        load_bundle(copy)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"schema": NaN}', "", '"\\ud800"'])
def test_a_manifest_that_is_no_json_is_one_line(copy: Path, text: str) -> None:
    (copy / "manifest.json").write_text(text)
    with pytest.raises(BundleError, match="not JSON") as caught:
        load_bundle(copy)
    assert str(caught.value).isprintable()
    assert newest_bundle(copy.parent) is None
