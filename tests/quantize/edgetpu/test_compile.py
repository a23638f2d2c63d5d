"""`compile` with a stand-in that prints what the compiler was seen to print and hands out what it was seen to make."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import struct
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edge_quantize.bundling.sign import keygen
from edge_quantize.cli import main
from edge_quantize.edgetpu.compiler import read_log

from edge.bundle.flatbuffer import Table, read_model
from edge.bundle.manifest import load_bundle
from tests.support.bundles import without_detector
from tests.support.processes import alive

ROLES = ("gate", "fer_unmasked", "fer_masked")
PART_OF_SET = "mobilenet_v1_{}_quant_cocompiled_with_3quant_edgetpu.tflite"

# Published in google-coral/edgetpu#518, #427 and #572: versions 15 and 16, one model and several.
LOG_TWO = """Edge TPU Compiler version 15.0.340273435
Models compiled successfully in 2988 ms.
Input model: cnn.tflite
Input size: 8.00MiB
Output model: cnn_edgetpu.tflite
Output size: 9.30MiB
On-chip memory used for caching model parameters: 7.16MiB
On-chip memory remaining for caching model parameters: 2.25KiB
Off-chip memory used for streaming uncached model parameters: 2.95MiB
Number of Edge TPU subgraphs: 1
Total number of operations: 313
Operation log: cnn_edgetpu.log
See the operation log file for individual operation details.
Input model: rnn.tflite
Input size: 2.97MiB
Output model: rnn_edgetpu.tflite
Output size: 4.74MiB
On-chip memory used for caching model parameters: 0.00B
On-chip memory remaining for caching model parameters: 2.25KiB
Off-chip memory used for streaming uncached model parameters: 4.53MiB
Number of Edge TPU subgraphs: 1
Total number of operations: 78
"""
LOG_CPU = """Edge TPU Compiler version 15.0.340273435

Model compiled successfully in 1379 ms.

Input model: model.tflite
Input size: 4.41MiB
Output model: model_edgetpu.tflite
Output size: 5.49MiB
On-chip memory used for caching model parameters: 1.92MiB
On-chip memory remaining for caching model parameters: 1.75KiB
Off-chip memory used for streaming uncached model parameters: 3.23MiB
Number of Edge TPU subgraphs: 1
Total number of operations: 136
Operation log: model_edgetpu.log

Model successfully compiled but not all operations are supported by the Edge TPU. A percentage of the model will \
instead run on the CPU, which is slower. If possible, consider updating your model to use only operations supported by \
the Edge TPU. For details, visit g.co/coral/model-reqs.
Number of operations that will run on Edge TPU: 135
Number of operations that will run on CPU: 1

Operator                       Count      Status

RESHAPE                        15         Mapped to Edge TPU
CUSTOM                         1          Operation is working on an unsupported data type
"""
HEAD = "Edge TPU Compiler version 16.0.384591198\nStarted a compilation timeout timer of 180 seconds.\n"
BLOCK = """
Input model: {path}
Input size: 4.04MiB
Output model: {stem}_edgetpu.tflite
Output size: 4.13MiB
On-chip memory used for caching model parameters: 604.50KiB
On-chip memory remaining for caching model parameters: 511.50KiB
Off-chip memory used for streaming uncached model parameters: 0.00B
Number of Edge TPU subgraphs: 1
Total number of operations: 9
Operation log: {stem}_edgetpu.log

Operator                       Count      Status

CONV_2D                        8          Mapped to Edge TPU
SOFTMAX                        1          {status}
"""
TAIL = "Compilation child process completed within timeout period.\nCompilation succeeded!\n"
# Issues #829, #168, #211, #643, #653 and #800.
FAILURES = {
    "ERROR: Attempting to use a delegate that only supports static-sized tensors with a graph that has dynamic-sized "
    "tensors.\nCompilation failed: Model failed in Tflite interpreter. Please ensure model can be loaded/run in Tflite "
    "interpreter.\nCompilation child process completed within timeout period.\nCompilation failed!": "dynamic-sized",
    "Invalid model: gate_int8.tflite\nModel not quantized": "Invalid model: gate_int8.tflite; Model not quantized",
    "Internal compiler error. Aborting! ": "Internal compiler error. Aborting!",
    "/usr/bin/edgetpu_compiler: line 3:  1531 Segmentation fault      (core dumped)": "Segmentation fault",
    "Compilation failed: Compilation failed due to large activation tensors in model.": "large activation tensors",
    "Compilation failed!": "it gave no reason",
}

STAND_IN = """#!{python}
import json, pathlib, shutil, sys
home = pathlib.Path(__file__).parent
(home / "argv.json").write_text(json.dumps(sys.argv[1:]))
print({head!r})
if (home / "fails").exists():
    print((home / "fails").read_text())
    sys.exit(1)
out = pathlib.Path(sys.argv[sys.argv.index("-o") + 1])
for path in map(pathlib.Path, sys.argv[sys.argv.index("-o") + 2:]):
    made = home / (path.stem + "_edgetpu.tflite")
    shutil.copy(made, out)
    cpu = "PosenetDecoderOp" in made.read_bytes().decode("latin-1")
    status = "Operation is working on an unsupported data type" if cpu else "Mapped to Edge TPU"
    print({block!r}.format(path=path, stem=path.stem, status=status))
print({tail!r})
"""


def test_logs_of_two_versions_are_read() -> None:
    log = read_log(LOG_TWO)
    assert log.version == "15.0.340273435"
    assert not log.complaints
    cnn, rnn = log.models
    assert (cnn.file, cnn.operations, cnn.subgraphs) == ("cnn.tflite", 313, 1)
    assert (cnn.on_chip_bytes, cnn.remaining_bytes, cnn.streamed_bytes) == (7507804, 2304, 3093299)
    assert (rnn.file, rnn.on_chip_bytes, rnn.streamed_bytes) == ("rnn.tflite", 0, 4750049)
    (model,) = read_log(LOG_CPU).models
    assert model.statuses == [
        ("RESHAPE", 15, "Mapped to Edge TPU"),
        ("CUSTOM", 1, "Operation is working on an unsupported data type"),
    ]
    assert read_log("") == read_log("Operator Count\nConv 1 x\n: :\nTotal number of operations: many\n")


def refit(compiled: bytes, source: bytes) -> bytes:
    """A compiled file that takes and gives what `source` does: its two tensors changed where they stand."""
    changed, start = bytearray(compiled), np.frombuffer(compiled, np.uint8).ctypes.data

    def put(old: Any, new: Any) -> None:  # noqa: ANN401 - views of a file
        where = old.ctypes.data - start
        changed[where : where + old.nbytes] = np.asarray(new, old.dtype).tobytes()

    graphs = [read_model(data)["subgraphs"][0] for data in (compiled, source)]
    for end in ("inputs", "outputs"):
        old, new = (graph["tensors"][int(graph[end][0])] for graph in graphs)
        put(old["shape"], new["shape"])
        for key in ("scale", "zero_point"):
            given = new["quantization"].get(key, ())
            put(old["quantization"][key], given if len(given) else [0])
        kind = place_of(old, 1, compiled)
        changed[kind] = new["type"]
    return bytes(changed)


def place_of(table: Table, field: int, data: bytes) -> int:
    """Where a field of a table lies."""
    vtable = table.offset - int(struct.unpack_from("<i", data, table.offset)[0])
    return table.offset + int(struct.unpack_from("<H", data, vtable + 4 + 2 * field)[0])


@pytest.fixture
def bundle(bundle_folder: Path, tmp_path: Path) -> Path:
    """The classifiers: a set of classifiers is what was really compiled together."""
    return without_detector(bundle_folder, tmp_path / "bundle")


@pytest.fixture
def compiler(bundle: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stand-in's folder on PATH, with what it hands out: parts of a set that was really compiled together."""
    home = tmp_path / "bin"
    home.mkdir()
    program = home / "edgetpu_compiler"
    program.write_text(STAND_IN.format(python=sys.executable, head=HEAD, block=BLOCK, tail=TAIL), encoding="utf-8")
    program.chmod(0o755)
    for role, which in zip(ROLES, ("0.25_128", "0.5_160", "0.5_160"), strict=True):
        source = bundle / f"{role}_int8.tflite"
        made = (data / "edgetpu_pairs" / PART_OF_SET.format(which)).read_bytes()
        (home / f"{role}_int8_edgetpu.tflite").write_bytes(refit(made, source.read_bytes()))
    monkeypatch.setenv("PATH", f"{home}{os.pathsep}{os.environ['PATH']}")
    return home


def told(capsys: pytest.CaptureFixture[str], *argv: str | Path, code: int) -> str:
    """One line of an error, or all of the answer."""
    assert main(list(map(str, argv))) == code
    said = capsys.readouterr()
    if code:
        assert said.err.count("\n") == 1
    return said.err if code else said.out


def test_a_bundle_is_compiled_together_and_recorded(
    bundle: Path, compiler: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = told(capsys, "compile", "--bundle", bundle, code=0)
    asked = json.loads((compiler / "argv.json").read_text())
    assert asked[0] == "-s"
    assert [Path(path).name for path in asked[3:]] == [f"{role}_int8.tflite" for role in ROLES], "hottest first"
    assert "gate_int8_edgetpu.tflite: every operator mapped, 518,656 bytes of parameters on the chip" in said
    assert "compiled together by 16.0.384591198, caching token 34f7352e5092da7d" in said
    read = load_bundle(bundle)
    for role in ROLES:
        entry = read.entry(role)
        assert entry.edgetpu == f"{role}_int8_edgetpu.tflite"
        assert entry.edgetpu_sha256 == hashlib.sha256(read.read_edgetpu(role)).hexdigest()
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    assert {model["edgetpu_compiler"] for model in manifest["models"]} == {"16.0.384591198"}
    assert sorted(path.name for path in bundle.parent.iterdir()) == ["bin", "bundle"], "nothing is left behind"
    told(capsys, "compile", "--bundle", bundle, code=0)  # and again


def damage(kind: str, compiler: Path, pairs: Path) -> None:
    """Let the stand-in make something that must not be recorded."""
    target = compiler / "fer_masked_int8_edgetpu.tflite"
    fitted = target.read_bytes()
    if kind == "cpu":
        shutil.copy(pairs / "posenet_mobilenet_v1_075_353_481_quant_decoder_edgetpu.tflite", target)
    elif kind == "uncompiled":
        shutil.copy(pairs / "split_concat.tflite", target)
    elif kind == "ends":
        shutil.copy(pairs / PART_OF_SET.format("0.5_160"), target)
    elif kind == "cut":
        target.write_bytes(fitted[:1000])
    else:
        which = {
            "streams": PART_OF_SET.format("0.75_192"),
            "token": "mobilenet_v1_0.25_128_quant_cocompiled_with_inception_v4_299_quant_edgetpu.tflite",
        }[kind]
        target.write_bytes(refit((pairs / which).read_bytes(), fitted))


@pytest.mark.parametrize(
    ("kind", "code", "says"),
    [
        ("cpu", 65, r"left to the CPU: 1 × SOFTMAX \(Operation is working on an unsupported data type\)"),
        ("uncompiled", 65, "left to the CPU: CONCATENATION, SPLIT, CONCATENATION"),
        ("ends", 65, "inputs or outputs are not those of fer_masked_int8.tflite"),
        ("streams", 65, "1,626,880 bytes would be sent at every inference"),
        ("token", 65, "caching tokens 34f7352e5092da7d, a303fd9f7817296d instead of one"),
        ("cut", 66, r"byte \d+: "),
    ],
)
def test_what_cannot_be_used_is_refused_and_nothing_changes(
    kind: str, code: int, says: str, bundle: Path, compiler: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(kind, compiler, data / "edgetpu_pairs")
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    error = told(capsys, "compile", "--bundle", bundle, code=code)
    assert re.search(says, error), error
    assert "fer_masked_int8_edgetpu.tflite" in error or kind == "token"
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before
    assert sorted(path.name for path in bundle.parent.iterdir()) == ["bin", "bundle"]


@pytest.mark.parametrize(("output", "says"), FAILURES.items())
def test_a_failure_is_told_in_the_compilers_words(
    output: str, says: str, bundle: Path, compiler: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (compiler / "fails").write_text(output, encoding="utf-8")
    error = told(capsys, "compile", "--bundle", bundle, code=69)
    assert "edgetpu_compiler failed (exit code 1)" in error
    assert says in error


def test_a_compiler_that_makes_nothing_has_failed_whatever_it_returns(
    bundle: Path, compiler: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = compiler / "edgetpu_compiler"
    program.write_text("#!/bin/sh\nexit 0\n", encoding="utf-8")
    assert "(exit code 0) on gate_int8.tflite, fer_" in told(capsys, "compile", "--bundle", bundle, code=69)
    program.write_text("#!/nowhere/sh\n", encoding="utf-8")
    assert "reinstall edgetpu_compiler" in told(capsys, "compile", "--bundle", bundle, code=69)


def test_a_compiler_that_hangs_is_killed_with_its_children(
    bundle: Path, compiler: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pids = compiler / "pids"
    script = f"#!/bin/sh\nsleep 600 &\necho $$ $! > {pids}\nwait\n"  # the real one is a script around the compiler
    (compiler / "edgetpu_compiler").write_text(script, encoding="utf-8")
    assert "did not end within 6 s" in told(capsys, "compile", "--bundle", bundle, "--timeout", "6", code=69)
    started = pids.read_text(encoding="utf-8").split()
    assert len(started) == 2
    for pid in started:
        for _ in range(600):  # a killed process takes a moment to go
            if not alive(int(pid)):
                break
            time.sleep(0.05)
        assert not alive(int(pid))


def test_without_a_compiler_it_says_what_to_install(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    error = told(capsys, "compile", "--bundle", bundle, code=69)
    assert "edgetpu_compiler is not on PATH: install it on an x86-64" in error
    assert "apt-get install edgetpu-compiler" in error


def test_a_signed_bundle_is_signed_again_or_left_alone(
    bundle: Path, compiler: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = tmp_path / "maker.key"
    public, _ = keygen(key)
    told(capsys, "sign", "--bundle", bundle, "--key", key, code=0)
    before = (bundle / "manifest.json").read_bytes()
    assert "the bundle is signed, and its manifest will change" in told(capsys, "compile", "--bundle", bundle, code=2)
    assert (bundle / "manifest.json").read_bytes() == before
    assert not (compiler / "argv.json").exists(), "before the long work, not after it"
    told(capsys, "compile", "--bundle", bundle, "--sign-key", key, code=0)
    read = load_bundle(bundle, str(public))
    assert read.signed is not None
    assert all(read.read_edgetpu(role) for role in ROLES)


def test_a_bundle_whose_golden_answers_changed_is_not_recorded(
    bundle: Path, compiler: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The CPU models still stand behind the compiled ones, so they must compute as they did."""
    golden = bundle / "golden.npz"
    with np.load(golden) as kept:
        answers = {**kept, "gate_outputs": -kept["gate_outputs"]}
    np.savez_compressed(golden, **answers)
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["golden_sha256"] = hashlib.sha256(golden.read_bytes()).hexdigest()
    path.write_text(json.dumps(manifest), encoding="utf-8")
    assert "golden answers differ" in told(capsys, "compile", "--bundle", bundle, code=65)
    assert (compiler / "argv.json").exists()
    assert json.loads(path.read_text(encoding="utf-8")) == manifest
