"""Masks: they sit where they should, do not tell the expression, and the frozen set stays what it was."""

from __future__ import annotations

import os

import cv2
import numpy as np
import pytest
from edge_quantize.datasets import fer2013 as data
from edge_quantize.masks import sets as mask_sets
from edge_quantize.masks import synthesis as masks
from edge_quantize.masks.landmarks import MESH_POINTS, POINT
from edge_quantize.masks.templates import (
    ANCHORS,
    FROZEN_VARIANTS,
    KINDS,
    TRAIN_VARIANTS,
    UNSEEN_KIND,
    draw,
    read_template,
)

from edge.errors import SourceError


def frontal_face(chin_drop: float = 0.0) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Landmarks of an upright face, eyes 18 pixels apart around (24, 18); `chin_drop` opens the mouth."""
    named = {
        "jaw_0": (-1.06, 0.21), "jaw_1": (-1.01, 0.65), "jaw_9": (1.01, 0.65), "jaw_10": (1.06, 0.21),
        "chin": (0, 1.644 + chin_drop), "bridge_0": (0, -0.065), "bridge_1": (0, 0.066), "bridge_2": (0, 0.18),
        "nose_tip": (0, 0.54), "subnasale": (0, 0.715), "eye_left_outer": (-0.72, 0), "eye_left_inner": (-0.28, 0),
        "eye_right_inner": (0.28, 0), "eye_right_outer": (0.72, 0),
    }  # fmt: skip
    points = np.zeros((len(MESH_POINTS), 2), np.float32)
    for name, place in named.items():
        points[POINT[name]] = np.array(place) * 18 + (24, 18)
    return points


FACE = np.full((48, 48), 150, np.uint8)


@pytest.mark.parametrize("kind", range(len(KINDS)))
def test_a_mask_covers_mouth_and_leaves_eyes_and_forehead(kind: int) -> None:
    points = frontal_face()
    for seed in range(8):
        params = masks.draw_params(0, FACE, points, np.random.default_rng(seed), masks.Lots(kinds=(kind,), jitter=0.0))
        params["shadow"] = params["strap_cover"] = 0
        if masks.refusal(params, points):
            continue
        cover = masks.coverage(params)
        assert cover[36:40, 20:28].min() > 0.9
        assert cover[18, [13, 14, 33, 34]].max() < 0.3
        made = masks.render(FACE, params)
        np.testing.assert_array_equal(made[:8], FACE[:8])
        assert made.shape == FACE.shape


def test_rendering_repeats_to_the_pixel() -> None:
    params = masks.draw_params(3, FACE, frontal_face(), np.random.default_rng(3), masks.Lots())
    np.testing.assert_array_equal(masks.render(FACE, params), masks.render(FACE, params))


def test_the_chin_of_a_closed_mouth_hides_an_open_one() -> None:
    closed, opened = (
        masks.anchors(frontal_face(drop), np.random.default_rng(5), masks.Lots(neutral=1.0)) for drop in (0.0, 0.5)
    )
    np.testing.assert_allclose(closed, opened, atol=0.01)
    real = masks.anchors(frontal_face(0.5), np.random.default_rng(5), masks.Lots(neutral=0.0))
    assert real[3, 1] > opened[3, 1] + 4


def test_a_colour_picture_stays_one_and_grey_agrees_with_it() -> None:
    params = masks.draw_params(0, FACE, frontal_face(), np.random.default_rng(1), masks.Lots())
    params["saturation"], params["tone"] = 0.2, 120
    grey = masks.render(FACE, params)
    colour = masks.render(np.repeat(FACE[..., None], 3, axis=2), params)
    assert colour.shape == (48, 48, 3)
    assert np.abs(cv2.cvtColor(colour, cv2.COLOR_BGR2GRAY).astype(int) - grey).max() <= 2


def test_profiles_and_covered_eyes_are_refused() -> None:
    points = frontal_face()
    params = masks.draw_params(0, FACE, points, np.random.default_rng(1), masks.Lots(jitter=0.0))
    folded = params.copy()
    folded["quad"][2] = folded["quad"][1] + (0.2, 8)
    assert masks.refusal(folded, points) == "profile"
    high = params.copy()
    high["quad"] -= (0, 14)
    assert masks.refusal(high, points) == "eyes"


def test_lots_depend_on_seed_and_row_alone() -> None:
    first, again = (mask_sets.draw_accepted(7, FACE, frontal_face(), seed=1) for _ in range(2))
    other = mask_sets.draw_accepted(7, FACE, frontal_face(), seed=2)
    assert first == again
    assert first != other


def test_only_the_frozen_set_knows_the_unseen_family_and_shapes() -> None:
    with np.load(mask_sets.FROZEN) as kept:
        params = kept["params"]
    assert 0.15 < (params["kind"] == UNSEEN_KIND).mean() < 0.25
    assert set(np.unique(params["variant"])) <= set(FROZEN_VARIANTS)
    assert set(FROZEN_VARIANTS).isdisjoint(TRAIN_VARIANTS)
    drawn = [mask_sets.draw_accepted(n, FACE, frontal_face(), seed=1) for n in range(60)]
    assert all(not isinstance(d, str) and d["kind"] != UNSEEN_KIND and d["variant"] in TRAIN_VARIANTS for d in drawn)
    assert len(params) > 0.93 * 3589


def test_anchors_of_a_template_are_the_canonical_ones() -> None:
    template = draw(0, 0)
    assert template.layers.dtype == np.uint8
    np.testing.assert_allclose(template.anchors[3] - template.anchors[1], (ANCHORS[3] - ANCHORS[1]) * 72, atol=1e-3)


def test_a_template_needs_transparency(tmp_path: os.PathLike[str]) -> None:
    path = os.path.join(tmp_path, "mask.png")  # noqa: PTH118
    cv2.imwrite(path, np.zeros((10, 10, 3), np.uint8))
    with pytest.raises(SourceError, match="alpha"):
        read_template(path)
    picture = np.zeros((300, 300, 4), np.uint8)
    picture[120:200, 80:220] = (40, 80, 200, 255)
    cv2.imwrite(path, picture)
    made = masks.render(FACE, masks.draw_params(0, FACE, frontal_face(), np.random.default_rng(0), masks.Lots()),
                        read_template(path))  # fmt: skip
    assert (made != FACE).any()


def test_frozen_masked_public_test_renders_to_its_checksum() -> None:
    if not (data.data_root() / "fer2013").is_dir() and os.environ.get("CI") != "true":
        pytest.skip("needs FER2013: set EDGE_DATA")
    images = data.load_fer2013().images
    made = mask_sets.render_frozen(images)
    assert made.images.shape[1:] == (48, 48)
    changed = images.copy()
    changed[made.params["index"][0], 0, 0] ^= 1
    with pytest.raises(SourceError, match="frozen"):
        mask_sets.render_frozen(changed)
