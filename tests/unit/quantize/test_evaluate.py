"""Evaluation on made-up answers, so that every figure can be checked by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from edge_quantize import corruptions, evaluate, groups, in_scene, metrics, mistakes, report
from edge_quantize.data import Fer2013
from edge_quantize.landmarks import POINT, Landmarks

from edge.detect.haar import Haar
from edge.types import CropSpec
from tests.conftest import MATERIAL

if TYPE_CHECKING:
    from pathlib import Path


def test_ferplus_majority_maps_to_our_classes() -> None:
    votes = np.zeros((5, 10), np.int16)
    votes[0, 1] = 8  # happiness
    votes[1, 0] = votes[1, 3] = 5  # a tie
    votes[2] = -1  # unknown
    votes[3, 9] = 7  # not a face
    votes[4, 4] = 6  # anger
    assert evaluate.ferplus_majority(votes).tolist() == [3, -1, -1, -1, 0]


def test_happy_bias_of_a_perfect_and_of_an_eager_classifier() -> None:
    perfect = np.hstack([np.eye(7, dtype=int) * 100, np.zeros((7, 1), int)])
    assert evaluate.happy_bias(perfect.tolist(), (0.15, 0.5)) == {"0.15": 0.15, "0.50": 0.5}
    eager = perfect.copy()
    eager[4] = (0, 0, 0, 60, 40, 0, 0, 0)
    assert evaluate.happy_bias(eager.tolist(), (0.15,))["0.15"] == pytest.approx(0.15 + 0.85 * 0.1)
    shy = perfect.copy()
    shy[:3, 7] = shy[[0, 1, 2], [0, 1, 2]]
    shy[[0, 1, 2], [0, 1, 2]] = 0
    assert evaluate.happy_bias(shy.tolist(), (0.5,))["0.50"] == pytest.approx(0.5 / 0.75, abs=1e-4)


def test_single_pictures_leaves_out_both_of_a_pair() -> None:
    fer = made_up(6)
    assert evaluate.single_pictures(fer, np.arange(6)).tolist() == [True, True, True, True, False, False]


def made_up(n: int) -> Fer2013:
    """A data set of n faces, all of PublicTest; the last two show the same picture."""
    rng = np.random.default_rng(0)
    group = np.arange(n, dtype=np.int32)
    group[-1] = group[-2]
    return Fer2013(
        images=rng.integers(0, 256, (n, 48, 48)).astype(np.uint8), labels=(np.arange(n) % 7).astype(np.uint8),
        public=np.ones(n, bool), votes=np.full((n, 10), -1, np.int16), dup_group=group, usable=np.zeros(n, bool),
    )  # fmt: skip


def camera_losses() -> dict[str, Any]:
    """PublicTest-C of a net that loses one point to everything."""
    one = {**metrics.share(np.ones(70, bool)), "loss_points": 1.0, "sad_share": 0.2}
    return {"corruptions": dict.fromkeys(corruptions.CORRUPTIONS, one), "mean_loss": 1.0, "worst_loss": 1.0,
            "worst": "noise"}  # fmt: skip


@pytest.mark.parametrize("name", corruptions.CORRUPTIONS)
def test_a_corruption_is_fixed_and_changes_every_face(name: str) -> None:
    y, x = np.mgrid[:48, :48]
    face = (120 + 60 * np.sin(x / 3) + 40 * np.cos(y / 4)).astype(np.uint8)
    faces = np.stack([face, face[:, ::-1], face[::-1]])
    before = faces.copy()
    once = corruptions.corrupt(name, faces)
    assert once.shape == faces.shape
    assert once.dtype == np.uint8
    assert np.array_equal(once, corruptions.corrupt(name, faces))
    assert np.array_equal(faces, before)
    assert all((a != b).mean() > 0.2 for a, b in zip(once, faces, strict=True))


def test_a_face_in_a_scene_is_found_where_it_was_set() -> None:
    portrait = cv2.imread(str(MATERIAL / "astronaut.png"), cv2.IMREAD_GRAYSCALE)
    assert portrait is not None
    detector = Haar(rotations=(0.0,))
    (box,) = detector.detect(portrait.astype(np.uint8), thorough=True)
    x, y, side = round(box.x), round(box.y), round(box.w)
    face = cv2.resize(portrait[y : y + side, x : x + side], (48, 48), interpolation=cv2.INTER_AREA).astype(np.uint8)
    room = np.full((270, 480, 3), 90, np.uint8)
    crops = [CropSpec(1.0, 0.0), CropSpec(1.2, 0.0)]
    seen = in_scene.look(np.stack([face, np.zeros((48, 48), np.uint8)]), [room], detector, crops)
    assert seen.found.tolist() == [True, False]
    assert seen.chips.shape == (2, 1, 48, 48)
    assert np.abs(seen.boxes[0] - (1, 0.5, 0.5)).max() < 0.15
    assert np.corrcoef(seen.chips[0, 0].ravel(), face.ravel())[0, 1] > 0.8


def test_groups_follow_the_nose_and_the_chin() -> None:
    points = np.zeros((3, len(POINT), 2), np.float32)
    for name, place in {"eye_left_outer": (10, 20), "eye_left_inner": (18, 20), "eye_right_inner": (30, 20),
                        "eye_right_outer": (38, 20), "nose_tip": (24, 30), "chin": (24, 46)}.items():  # fmt: skip
        points[:, POINT[name]] = place
    points[1, POINT["nose_tip"]] = (34, 30)
    points[1, POINT["chin"]] = (24, 52)
    assert groups.yaw(points).tolist() == pytest.approx([0, 0.5, 0])
    images = np.random.default_rng(0).integers(0, 256, (3, 48, 48)).astype(np.uint8)
    marks = Landmarks(points, np.array([True, True, False]))
    found = groups.by_group(images, marks, np.arange(3), np.array([True, False, True]))
    assert [f["n"] for f in found["by_yaw"].values()] == [1, 0, 1]
    assert [f["n"] for f in found["by_chin"].values()] == [1, 1, 1]
    assert found["by_chin"]["below the picture"]["accuracy"] == 0


def test_blurred_is_less_sharp() -> None:
    face = np.random.default_rng(0).integers(0, 256, (48, 48)).astype(np.uint8)
    sharp, soft = groups.sharpness(np.stack([face, cv2.GaussianBlur(face, (0, 0), 2).astype(np.uint8)]))
    assert soft < sharp / 10


def test_the_report_is_complete_and_refers_to_nothing_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fer, rng = made_up(70), np.random.default_rng(3)
    rows = np.arange(70)

    def said(classes: int) -> Any:  # noqa: ANN401
        return rng.dirichlet(np.ones(classes), 70).astype(np.float32)

    roles = {"gate": 2, "fer_unmasked": 7, "fer_masked": 7}
    answers = evaluate.Answers(rows, rows, {r: said(k) for r, k in roles.items()},
                               {r: said(k) for r, k in roles.items()},
                               said(2), {"gate": 0.2, "fer_unmasked": 1.0, "fer_masked": 1.0})  # fmt: skip

    class Worn:
        params = np.array([(k % 5, float(k)) for k in range(70)], np.dtype([("kind", "u1"), ("tone", "<f4")]))

    monkeypatch.setattr(evaluate, "frozen", Worn)
    mixture = evaluate._mixture(fer, answers)
    assert mixture["masked_share"] == 0.5
    assert mixture["time_ratio"] == pytest.approx(0.6)
    made: dict[str, Any] = {"bundle": "b", "created": "now", "mixture": mixture, "not_measured": [], "sha256": {},
                            "invoke_ms": answers.invoke_ms}  # fmt: skip
    for role, source in (("fer_unmasked", answers.bare), ("fer_masked", answers.worn)):
        made[role] = evaluate._expression(fer, rows, source[role], 0.3)
        made[role]["happy_share_read"] = evaluate.happy_bias(made[role]["confusion_with_uncertain"])
        assert np.array(made[role]["confusion_with_uncertain"]).shape == (7, 8)
        assert np.array(made[role]["confusion_with_uncertain"]).sum() == 70
        assert made[role]["without_duplicates"]["n"] == 68
    made["fer_masked"]["by_kind"] = {"surgical": metrics.share(np.ones(4, bool))}
    made["gate"] = evaluate._gate(answers, rows % 2, np.linspace(1, 1.6, 70).astype(np.float32), rows // 2)
    assert made["gate"]["real_held_out"]["tight"]["n"] + made["gate"]["real_held_out"]["loose"]["n"] == 70
    assert made["gate"]["real_held_out"]["by_photo"]["n"] == 35
    made["public_c"] = {role: camera_losses() for role in roles}
    seen = in_scene.Found(fer.images[None, :60], rows < 60, np.linspace(60, 160, 70).astype(np.int64), np.ones((60, 3)))
    truth = fer.labels.astype(np.int64)
    made["in_scene"] = in_scene.figures(seen, truth, truth[:60], (truth + (rows == 5)) % 7)
    assert made["in_scene"]["recall"]["accuracy"] == pytest.approx(60 / 70, abs=1e-4)
    assert made["in_scene"]["loss_points"] == pytest.approx(-100 / 60, abs=0.01)
    runs = tmp_path / "runs"
    (runs / "fer").mkdir(parents=True)
    cv2.imwrite(str(runs / "fer" / "curves.png"), fer.images[0])
    (runs / "fer" / "public_scores.jsonl").write_text("{}\n{}\n", encoding="utf-8")
    made["public_test_scored"] = report.looks(runs)
    assert made["public_test_scored"] == {"fer": 2}
    wrong = mistakes.surest(fer.images, truth, answers.bare["fer_unmasked"], shown=13)
    assert [m.probability for m in wrong] == sorted((m.probability for m in wrong), reverse=True)
    assert all(m.true != m.said for m in wrong)
    report.write(made, tmp_path, wrong, runs)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 12
    assert "http://" not in page
    assert "https://" not in page
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "not measured" in text
    assert all(f"| {name}: " in text for name in corruptions.CORRUPTIONS)
