"""Three trained nets and the detector to one verified model bundle, `models/<name>/`."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edge.bundle.golden import golden_answers
from edge.bundle.manifest import load_bundle
from edge.errors import ConfigError
from edge.vision.detect.choose import judge
from edge_quantize.bundling import convert, detector, float_model, golden, quant_error, unbiased
from edge_quantize.bundling.kept import keep
from edge_quantize.bundling.model_card import write_card
from edge_quantize.bundling.sign import sign_bundle
from edge_quantize.evaluation import metrics, score
from edge_quantize.evaluation.chips import for_role, real_held_out
from edge_quantize.progress import bar
from edge_quantize.training.origins import OWN, has_own_faces, kept_own

if TYPE_CHECKING:
    from pathlib import Path

    from minisign import SecretKey

    from edge_quantize.bundling.quant_error import LayerError
    from edge_quantize.evaluation.chips import RoleChips

ROLES: Final = ("gate", "fer_unmasked", "fer_masked")
LICENSE: Final = "Apache-2.0"
"""Of the shipped nets; others' may have another."""
CROP: Final = {
    "haar": {"scale": 1.0, "dy": 0.0},
    "blazeface": {"scale": 1.18, "dy": -0.106},
    "hog": {"scale": 1.17, "dy": -0.086},
}
"""Detector box to crop, measured on FER2013: a Haar box is .97 of the picture, a BlazeFace or HOG box .85 and lower."""


def _figures(role: str, data: RoleChips, raw: np.ndarray[Any, np.dtype[np.int8]], interpreter: Any) -> dict[str, Any]:  # noqa: ANN401
    """Measured on PublicTest (rendered with the frozen masks for `fer_masked`, both ways for the gate)."""
    full = metrics.classifier(score.probabilities(raw), data.test_labels, data.names)
    kept = {key: full[key] for key in ("accuracy", "low", "high", "n", "macro_f1", "ece")}
    name = "fer2013_public_masked" if role == "fer_masked" else "fer2013_public"
    out: dict[str, Any] = {name: kept}
    if role == "gate":
        real = real_held_out()
        answer = score.outputs(interpreter, real.images).argmax(axis=1)
        out["real_photos_held_out"] = metrics.share(answer == real.label)
        out["real_photos_held_out_by_photo"] = metrics.photos(answer == real.label, real.photo)
    return out


def _short_of(layer: LayerError | None) -> dict[str, Any] | None:
    return None if layer is None else {key: layer.as_json()[key] for key in ("name", "op", "sqnr_db", "lost")}


def _entry(
    role: str, source: Path, folder: Path, max_loss: float
) -> tuple[dict[str, Any], dict[str, Any], list[LayerError]]:
    """Convert one net into `folder`; its manifest entry, its golden answers and its layers' errors."""
    data = for_role(role)
    model = float_model.load_keras(source)
    if model.output_shape[-1] != len(data.names):
        msg = f"{source}: gives {model.output_shape[-1]} answers, {role} has {len(data.names)}"
        raise ConfigError(msg)
    temperature = metrics.fit_temperature(float_model.predict(model, data.fit), data.fit_labels)
    float_model.fold_temperature(model, temperature)
    graph = convert.fixed(model)
    flat = unbiased.to_tflite(model, graph, convert.representative(data.train, data.train_labels), data.train)
    file = folder / f"{role}_int8.tflite"
    file.write_bytes(flat)
    model.save(folder / f"{role}.keras")
    paired = convert.compare(model, flat, data.test, data.test_labels)
    layers = convert.layer_errors(graph, flat, data.test)
    convert.refuse_loss(paired, role, max_loss, layers)

    interpreter = score.open_interpreter(flat)
    given, answer = score.quantisation(interpreter)
    params, macs = float_model.cost(model)
    with bar(f"{role}: PublicTest") as show:
        raw = score.outputs(interpreter, data.test, show)
    entry: dict[str, Any] = {
        "role": role, "file": file.name, "sha256": hashlib.sha256(flat).hexdigest(), "edgetpu": None,
        "source": f"{role}.keras", "input": given, "output": {"kind": "probabilities", **answer},
        "labels": list(data.names), "params": params, "macs": macs, "temperature": round(temperature, 4),
        "metrics": {**_figures(role, data, raw, interpreter), "int8_against_float": {
            **paired.as_json(), "worst_layer": _short_of(quant_error.worst(layers))}},
    }  # fmt: skip
    if role != "gate":
        fit = score.probabilities(score.outputs(interpreter, data.fit))
        threshold = metrics.uncertain_threshold(fit)
        sure = score.probabilities(raw)
        said = np.where(sure.max(axis=1) < threshold, len(data.names), sure.argmax(axis=1))
        entry["uncertain_below"] = threshold
        entry["confusion"] = metrics.confusion(data.test_labels, said, len(data.names), len(data.names) + 1)
    chips, answers = golden.make(model, flat, data.train, data.train_labels, len(data.names))
    return entry, {f"{role}_chips": chips, f"{role}_outputs": answers}, layers


def verify(folder: Path, public_key: str | None = None) -> None:
    """Read a bundle as the device does and compute its golden answers with a bare interpreter.

    Raises:
        BundleError: a file is missing or changed, or an answer differs; with a key, also a signature that is not its.

    """
    bundle = load_bundle(folder, public_key)
    for role, (chips, wanted) in golden_answers(bundle, tuple(m.role for m in bundle.manifest.models)).items():
        flat = bundle.read(role)
        if role in bundle.roles:
            convert.check_quantisation(flat)
        judge(bundle, role, "cpu", score.outputs(score.open_interpreter(flat), chips), wanted)


def refuse_taken(folder: Path) -> None:
    """Raise ConfigError where something has a bundle's place already."""
    if os.path.lexists(folder):
        msg = f"{folder}: is there already: give another --name, or remove the folder"
        raise ConfigError(msg)


def build(
    sources: dict[str, Path],
    folder: Path,
    max_loss: float = convert.MAX_LOSS,
    key: SecretKey | None = None,
    rest: Path | None = None,
    terms: str | None = None,
) -> None:
    """Make a bundle.

    Ranges, temperature, thresholds, `confusion`, golden answers and figures come from FER2013's faces, whatever the
    nets were trained on.

    Args:
        sources: .keras file (logits) of each role; of `detector`, BlazeFace's `.tflite`.
        folder: the bundle's folder; its name becomes the bundle's. It must not be there yet, and is there only when
            everything has succeeded.
        max_loss: points int8 may lose against float.
        key: minisign key that signs the manifest.
        rest: a bundle whose other models are taken over byte for byte.
        terms: licence of the weights, as SPDX names it; that of the shipped nets where it is not given.

    Raises:
        ConfigError: the folder is there already, or a net was trained on own faces and no licence is given.
        SourceError: a source, or the data, is missing.
        BundleError: a model cannot be quantised well enough.

    """
    refuse_taken(folder)
    own = {role for role, one in sources.items() if has_own_faces(one.parent.name, one.parent.parent)}
    of_rest = set() if rest is None else (kept_own(rest) & set(ROLES)) - set(sources)
    if terms is None and own | of_rest:
        named = ", ".join(sorted(own | of_rest))
        msg = f"{named}: trained on own faces: say under which --license the weights are given away"
        raise ConfigError(msg)
    draft = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    entries: list[dict[str, Any]] = []
    layers: dict[str, list[LayerError]] = {}
    answers: dict[str, np.ndarray[Any, np.dtype[Any]]] = {}
    others = set() if rest is None else {model.role for model in load_bundle(rest).manifest.models} - set(sources)
    for role in sorted({*sources, *others}, key=(*ROLES, "detector").index):
        errors: list[LayerError] | None = None
        if rest is not None and role in others:
            entry, some, errors = keep(rest, role, draft)
        elif role == "detector":
            entry, some = detector.make(sources[role], draft / "detector_int8.tflite")
        else:
            entry, some, errors = _entry(role, sources[role], draft, max_loss)
            entry |= {"trained_on": OWN} if role in own else {}
        if errors is not None:
            layers[role] = errors
        entries.append(entry)
        answers |= some
    np.savez_compressed(draft / "golden.npz", **answers)
    manifest = {
        "schema": "edge.bundle/1", "name": folder.name, "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "license": terms or LICENSE, "models": entries, "preprocess": {"id": "gray48/1", "crop": CROP},
        "golden": "golden.npz", "golden_sha256": hashlib.sha256((draft / "golden.npz").read_bytes()).hexdigest(),
    }  # fmt: skip
    (draft / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    quant_error.write_report(draft / "QUANTISATION.md", layers)
    write_card(draft, manifest)
    verify(draft, None if key is None else sign_bundle(draft, key))
    if os.path.lexists(folder):
        msg = f"{folder}: came while this bundle was made, which lies in {draft}: rename it"
        raise ConfigError(msg)
    draft.rename(folder)
