"""The chips each model of a bundle is calibrated, thresholded and tested on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from edge.errors import ConfigError
from edge.types import EMOTIONS, ROUTES, CropSpec, FaceBox
from edge.vision.preprocess import chip
from edge_quantize.datasets.fer2013 import (
    Fer2013,
    RealCrops,
    held_out_photos,
    load_fer2013,
    load_real_crops,
    load_rendered,
)
from edge_quantize.masks import sets as mask_sets

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge.types import U8

MASKS: Final = Path("build/masks")


@dataclass(frozen=True, slots=True)
class RoleChips:
    """Chips u8 (N, 48, 48) and class numbers (N,) for one role."""

    names: tuple[str, ...]
    train: U8
    train_labels: NDArray[np.int64]
    fit: U8
    """PublicTest half A: temperature and threshold."""
    fit_labels: NDArray[np.int64]
    test: U8
    """PublicTest, or its frozen masked rendering, or both for the gate."""
    test_labels: NDArray[np.int64]


@lru_cache(maxsize=1)
def fer2013() -> Fer2013:
    """FER2013, read once."""
    return load_fer2013()


@lru_cache(maxsize=1)
def frozen() -> mask_sets.MaskedSet:
    """The frozen masked PublicTest, rendered and checked once."""
    return mask_sets.render_frozen(fer2013().images)


def device_crop(images: U8) -> U8:
    """Cut FER2013 pictures (N, 48, 48) as the device does, given a Haar box that is the picture."""
    side = float(images.shape[1])
    return np.stack([chip(image, FaceBox(0, 0, side, side), CropSpec(1.0, 0.0)) for image in images])


def masked_training() -> tuple[U8, NDArray[np.int64]]:
    """First masked rendering of the training split that may be trained on: chips and rows in FER2013."""
    made = load_rendered(MASKS / "fer2013-train-0.npz")
    may = np.isin(made.index, fer2013().train_rows())
    return made.images[may], made.index[may].astype(np.int64)


def for_role(role: str) -> RoleChips:
    """Gather a role's chips.

    Raises:
        ConfigError: no such role.
        SourceError: data or renderings are missing.

    """
    fer = fer2013()
    half_a, _ = fer.public_halves()
    public = fer.public_rows()
    rows = fer.train_rows()
    bare = (fer.images[rows], fer.labels[rows].astype(np.int64))
    if role == "fer_unmasked":
        return RoleChips(EMOTIONS, *bare, fer.images[half_a], fer.labels[half_a].astype(np.int64),
                         device_crop(fer.images[public]), fer.labels[public].astype(np.int64))  # fmt: skip
    worn, worn_rows = masked_training()
    tested = frozen()
    index = tested.params["index"].astype(np.int64)
    in_a = np.isin(index, half_a)
    if role == "fer_masked":
        return RoleChips(EMOTIONS, worn, fer.labels[worn_rows].astype(np.int64), tested.images[in_a],
                         fer.labels[index[in_a]].astype(np.int64), device_crop(tested.images),
                         fer.labels[index].astype(np.int64))  # fmt: skip
    if role == "gate":
        half = np.concatenate([fer.images[half_a], tested.images[in_a]])
        both = device_crop(np.concatenate([fer.images[public], tested.images]))
        return RoleChips(
            names=ROUTES,
            train=np.concatenate([bare[0], worn]),
            train_labels=np.repeat([0, 1], [len(bare[0]), len(worn)]),
            fit=half,
            fit_labels=np.repeat([0, 1], [len(half_a), int(in_a.sum())]),
            test=both,
            test_labels=np.repeat([0, 1], [len(public), len(index)]),
        )
    msg = f"no role {role!r}: gate, fer_unmasked or fer_masked"
    raise ConfigError(msg)


def real_held_out() -> RealCrops:
    """Crops of photographs the gate never saw. Raises SourceError when real.npz is missing or damaged."""
    made = load_real_crops(MASKS / "real.npz")
    held = held_out_photos(made.photo)
    return RealCrops(made.images[held], made.label[held], made.photo[held], made.scale[held])
