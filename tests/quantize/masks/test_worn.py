"""Masks on turned heads: the camera is found, the shell turns with the head, the split is kept."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from edge_quantize.commands import masks as command
from edge_quantize.datasets.fer2013 import Fer2013, load_rendered
from edge_quantize.masks import surface, worn
from edge_quantize.masks.families import FAMILIES, NEVER_SEEN, TEST_VARIANTS, TRAINED, VARIANTS, draw
from edge_quantize.masks.landmarks import MESH_POINTS, POINT, Landmarks
from edge_quantize.masks.sets import digest

if TYPE_CHECKING:
    from pathlib import Path

FACE = np.full((48, 48), 150, np.uint8)


def head(yaw: float, pitch: float = 0.0, size: float = 18.0) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Landmarks of the mean head turned to the picture's right by `yaw` degrees and down by `pitch`."""
    a, b = np.deg2rad([yaw, pitch])
    turn = np.array([[np.cos(a), 0, -np.sin(a)], [0, 1, 0], [np.sin(a), 0, np.cos(a)]])
    nod = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    points = np.zeros((len(MESH_POINTS), 2), np.float32)
    for name, place in surface.MEAN_HEAD.items():
        points[POINT[name]] = (nod @ turn @ np.array(place))[:2] * size + (24, 18)
    return points


def worn_at(yaw: float, name: str = "cup", seed: int = 0) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    made = worn.wear(FACE, head(yaw), name, 3, np.random.default_rng(seed))
    assert not isinstance(made, str), made
    return made


@pytest.mark.parametrize("yaw", [-50.0, -20.0, 0.0, 35.0])
def test_the_camera_is_found_from_landmarks(yaw: float) -> None:
    camera = surface.find_camera(head(yaw))
    assert surface.turned(camera) == pytest.approx(abs(yaw), abs=0.1)
    np.testing.assert_allclose(
        camera.project(np.array(surface.MEAN_HEAD["nose_tip"])), head(yaw)[POINT["nose_tip"]], atol=0.01
    )
    assert camera.scale == pytest.approx(18, abs=0.1)


@pytest.mark.parametrize("name", list(FAMILIES))
def test_a_mask_covers_the_mouth_and_leaves_eyes_and_forehead(name: str) -> None:
    made_of = [worn.wear(FACE, head(0), name, seed, np.random.default_rng(seed)) for seed in range(6)]
    worn_well = [made for made in made_of if not isinstance(made, str)]
    assert len(worn_well) >= 4
    for made in worn_well:
        assert made.shape == FACE.shape
        np.testing.assert_array_equal(made[:6], FACE[:6])
        assert (made[34:40, 22:27] != FACE[34:40, 22:27]).mean() > 0.8


def test_on_a_turned_head_the_mask_goes_with_the_nose_and_its_far_half_is_hidden() -> None:
    """A homography keeps both halves; a shell shows less of the far one the more the head turns."""
    shares = []
    for yaw in (0.0, 30.0, 55.0):
        made = surface.shell("cup", 0.28)
        camera = surface.find_camera(head(yaw))
        drawing = draw("cup", 3)
        cover, detail = worn._read(drawing, made, np.array([[1.0, 0, 0], [0, 1.0, 0]]))
        seen = worn.splat(made, camera, cover, detail, (48, 48)).cover
        nose = camera.project(np.array(surface.MEAN_HEAD["nose_tip"]))[0] * worn._FINER
        shares.append(float(seen[:, round(nose) :].sum() / seen.sum()))
        assert seen.max() > 0.9
    assert shares[0] == pytest.approx(0.5, abs=0.06)
    assert shares[0] - 0.1 > shares[1]
    assert shares[1] - 0.1 > shares[2]


def test_what_lies_behind_is_hidden() -> None:
    """Two layers at one place of the picture: the nearer one is seen, however they are listed."""
    near = np.array([[[0.0, 0, -1]]], np.float32)
    both = np.concatenate([near, near + np.array([0, 0, 2])], axis=1).astype(np.float32)
    normals = np.broadcast_to(np.array([0, 0, -1], np.float32), both.shape)
    camera = surface.Camera(np.array([[10.0, 0, 0], [0, 10.0, 0]]), np.array([5.0, 5.0]))
    for order in ([0, 1], [1, 0]):
        bright = np.array([[0.25, 0.75]], np.float32)[:, order]
        made = surface.Shell(np.zeros((1, 2, 2), np.float32), both[:, order], normals)
        layers = worn.splat(made, camera, np.ones((1, 2), np.float32), bright, (10, 10))
        assert layers.fabric.max() == pytest.approx(0.25)
    turned_away = surface.Shell(np.zeros((1, 2, 2), np.float32), both, -normals)
    assert worn.splat(turned_away, camera, np.ones((1, 2), np.float32), bright, (10, 10)).cover.max() == 0


def test_a_profile_gets_its_mask_where_the_homography_gave_up() -> None:
    made = worn_at(60.0)
    assert 0.08 < (made != FACE).mean() < 0.8


def test_a_mask_over_the_eyes_is_refused() -> None:
    points = head(0)
    points[[POINT[n] for n in MESH_POINTS if n.startswith("eye")]] += (0, 12)
    assert {str(worn.wear(FACE, points, "scarf", 1, np.random.default_rng(seed))) for seed in range(3)} == {"eyes"}


def test_rendering_repeats_to_the_pixel_and_depends_on_seed_and_row_alone() -> None:
    faces = np.stack([FACE] * 6)
    marks = Landmarks(np.stack([head(10.0 * k - 25) for k in range(6)]), np.array([True] * 5 + [False]))
    whole = worn.render_worn(faces, np.arange(6), marks, 3, processes=1)
    part = worn.render_worn(faces, np.array([4, 2]), marks, 3, processes=1)
    other = worn.render_worn(faces, np.arange(6), marks, 4, processes=1)
    assert set(whole.index) <= set(range(5)), "no landmarks, no mask"
    for image, row in zip(part.images, part.index, strict=True):
        np.testing.assert_array_equal(image, whole.images[whole.index == row][0])
    assert digest(whole.images) != digest(other.images)


def test_some_training_masks_have_the_tone_of_the_face_and_the_tests_keep_theirs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dark = np.full((48, 48), 70, np.uint8)
    alike = [worn.wear(dark, head(0), "box", n, np.random.default_rng(n), like_skin=True) for n in range(12)]
    middles = [float(np.median(made[32:40, 20:29])) for made in alike if not isinstance(made, str)]
    assert len(middles) > 8
    assert 50 < min(middles) <= max(middles) < 95

    faces, marks = np.stack([dark] * 12), Landmarks(np.stack([head(0.0)] * 12), np.ones(12, bool))

    def rendered(*, test: bool = False, never_seen: bool = False) -> str:
        made = worn.render_worn(faces, np.arange(12), marks, 5, processes=1, test=test, never_seen=never_seen)
        return digest(made.images)

    before = rendered(test=True), rendered(never_seen=True), rendered()
    monkeypatch.setattr(worn, "SKIN_SHARE", 1.0)
    after = rendered(test=True), rendered(never_seen=True), rendered()
    assert after[:2] == before[:2]
    assert after[2] != before[2]


def test_training_wears_no_family_of_the_never_seen_and_no_drawing_of_the_tests() -> None:
    assert set(NEVER_SEEN) == {"duckbill", "bandana", "scarf", "half-mask"}, "fixed: figures depend on it"
    assert set(TRAINED).isdisjoint(NEVER_SEEN)
    assert set(TRAINED) | set(NEVER_SEEN) == set(FAMILIES)
    assert set(range(VARIANTS)).isdisjoint(TEST_VARIANTS)
    faces, marks = np.stack([FACE] * 40), Landmarks(np.stack([head(0.0)] * 40), np.ones(40, bool))
    names = np.array(list(FAMILIES))
    seen = worn.render_worn(faces, np.arange(40), marks, 1, processes=1)
    held = worn.render_worn(faces, np.arange(40), marks, 1, never_seen=True, processes=1)
    assert set(names[seen.kind]) <= set(TRAINED)
    assert len(set(names[seen.kind])) > 4
    assert set(names[held.kind]) == set(NEVER_SEEN)


def test_a_set_is_read_as_the_flat_renderings_are(tmp_path: Path) -> None:
    marks = Landmarks(head(20.0)[None], np.ones(1, bool))
    made = worn.render_worn(FACE[None], np.arange(1), marks, 1, processes=1)
    made.save(tmp_path / "worn.npz")
    again = load_rendered(tmp_path / "worn.npz")
    np.testing.assert_array_equal(again.images, made.images)
    assert made.turned[0] == pytest.approx(20, abs=0.1)


def test_the_command_writes_every_set_once_with_sheets_to_look_at(tmp_path: Path) -> None:
    count = 24
    public = np.arange(count) >= count // 2
    fer = Fer2013(np.stack([FACE] * count), np.zeros(count, np.uint8), public, np.zeros((count, 10), np.int16),
                  np.arange(count, dtype=np.int32), ~public, ~public)  # fmt: skip
    marks = Landmarks(np.stack([head(0.0)] * count), np.ones(count, bool))
    args = argparse.Namespace(folder=tmp_path, renderings=1, seed=1, processes=1, again=False)
    command._worn(args, fer, marks)
    sets = sorted(tmp_path.glob("*.npz"))
    names = ["worn-never-seen", "worn-public", "worn-train-0", "worn-validation"]
    assert [path.stem for path in sets] == names
    assert load_rendered(tmp_path / "worn-train-0.npz").index.max() < count // 2
    assert load_rendered(tmp_path / "worn-never-seen.npz").index.min() >= count // 2
    assert {path.stem for path in tmp_path.glob("*.png")} & {f"sheet-worn-{name}" for name in NEVER_SEEN}
    written = [path.stat().st_mtime_ns for path in sets]
    command._worn(args, fer, marks)
    assert [path.stat().st_mtime_ns for path in sets] == written


def test_the_log_of_refusals_keeps_those_of_renderings_before(tmp_path: Path) -> None:
    command._note(tmp_path, "fer2013-train-0", {"happy": {"small": 2}})
    command._note(tmp_path, "fer2013-train-1", {"happy": {"eyes": 1}})
    command._note(tmp_path, "fer2013-train-1", {"happy": {"eyes": 3}})
    assert json.loads((tmp_path / "rejects.json").read_text(encoding="utf-8")) == {
        "fer2013-train-0": {"happy": {"small": 2}}, "fer2013-train-1": {"happy": {"eyes": 3}},
    }  # fmt: skip
