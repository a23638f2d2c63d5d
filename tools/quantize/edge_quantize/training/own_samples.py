"""Somebody's own faces to train on: a folder with a folder for each class, or a CSV in FER2013's form."""

from __future__ import annotations

import sys
import zlib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from edge.errors import SourceError
from edge.types import EMOTIONS, ROUTES, CropSpec, FaceBox
from edge.vision.preprocess import chip
from edge_quantize.datasets.near_copies import near_copies
from edge_quantize.datasets.own_faces import faces_of
from edge_quantize.progress import bar
from edge_quantize.training.labelled import Labelled, Samples

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge_quantize.datasets.own_faces import Face
    from edge_quantize.training.labelled import I64, U8
    from edge_quantize.training.recipe import Recipe

OTHER_NAMES: Final = {
    "anger": "angry", "disgusted": "disgust", "fearful": "fear", "happiness": "happy", "sadness": "sad",
    "surprised": "surprise",
}  # fmt: skip
"""Class names of AffectNet, RAF-DB and FER+ copies, and ours."""
LEFT_OUT: Final = ("contempt",)
"""Classes of other data sets that the nets do not tell."""
HELD_OUT: Final = 0.1
_EXAMPLES: Final = 3


def own_samples(recipe: Recipe) -> Samples:
    """Samples of `recipe.data`, cut to chips as the device does with a box that is the picture.

    Copies, near copies and mirror images (`near_copies`) stay on one side of every split, and those of test rows are
    not trained on. Held out are a fold, or about a tenth of the faces. A face's side follows from its name
    alone: it stays where it is when others come, and its masked version is on the same.

    Raises:
        SourceError: nothing to read, a folder that is no class of the role, or fewer than two classes to train on.

    """
    source = Path(str(recipe.data))
    names = ROUTES if recipe.role == "gate" else EMOTIONS
    faces = _of_known_classes(faces_of(source), names, source)
    chips, labels, usage, lots = _read(faces, source)
    with bar(f"{source.name}: copies") as show:
        groups = near_copies(chips, show)
    lots = lots[groups]  # that of the first copy
    tested = {name: usage == use for name, use in (("public", "publictest"), ("private", "privatetest"))}
    in_tests = np.any(list(tested.values()), axis=0)
    rows = np.flatnonzero(~np.isin(groups, groups[in_tests]))
    fold = np.floor(lots[rows] * recipe.folds) == recipe.fold
    held = fold if recipe.folds else lots[rows] < HELD_OUT
    train, watched = rows[~held], rows[held]
    present = np.bincount(labels[train], minlength=len(names))
    if not len(watched) or (present > 0).sum() < 2:
        msg = f"{source}: {len(rows)} faces to train on are too few: two classes at least, and some to hold out"
        raise SourceError(msg)
    counts = ", ".join(f"{name} {n}" for name, n in zip(names, present, strict=True))
    sys.stderr.write(f"{source}: to train on {counts}; held out {len(watched)}\n")
    shown = np.bincount(labels[watched], minlength=len(names))
    for lacking, what in ((present, "to learn it from"), (shown, "held out: its errors are not seen")):
        absent = [name for name, n in zip(names, lacking, strict=True) if n == 0]
        if absent:
            sys.stderr.write(f"{source}: of {', '.join(absent)} there is no picture {what}\n")
    tests = {name: Labelled(chips[seen], labels[seen]) for name, seen in tested.items() if seen.any()}
    targets = np.eye(len(names), dtype=np.float32)[labels[train]]
    return Samples(chips[train], targets, np.full(len(train), -1), Labelled(chips[watched], labels[watched]), tests)


def _lot(name: str) -> float:
    """A number in [0, 1) that a face's name draws."""
    return zlib.crc32(name.encode()) / 2**32


def _of_known_classes(faces: list[Face], names: tuple[str, ...], source: Path) -> list[tuple[Face, int]]:
    """Faces with their class numbers; classes that no net tells are left out, unknown ones refused."""
    kept, left = [], Counter[str]()
    for face in faces:
        name = face.label.lower()
        name = OTHER_NAMES.get(name, name)
        if name in names:
            kept.append((face, names.index(name)))
        elif name in LEFT_OUT:
            left[name] += 1
        else:
            msg = f"{source}: {face.label!r} is no class of this model: rename or remove that folder; classes are "
            raise SourceError(msg + ", ".join(names))
    for name, n in left.items():
        sys.stderr.write(f"{source}: {n} pictures of {name!r} are left out: no class of this model\n")
    return kept


def _read(faces: list[tuple[Face, int]], source: Path) -> tuple[U8, I64, NDArray[np.str_], NDArray[np.float64]]:
    """Chips u8 (N, 48, 48), class numbers int64 (N,), the CSV's usage (N,) and lots (N,) of what can be read."""
    chips, labels, usage, lots, broken = [], [], [], [], []
    with bar(source.name) as show:
        for k, (face, label) in enumerate(faces):
            try:
                image = face.read()
            except SourceError as error:
                broken.append(str(error))
                continue
            height, width = image.shape[:2]
            chips.append(chip(image, FaceBox(0, 0, float(width), float(height)), CropSpec(1.0, 0.0)))
            labels.append(label)
            usage.append(face.usage)
            lots.append(_lot(face.name))
            show(k + 1, len(faces))
    if broken:
        sys.stderr.write(f"{source}: {len(broken)} of {len(faces)} pictures cannot be read and are left out:\n")
        sys.stderr.write("".join(f"  {why}\n" for why in broken[:_EXAMPLES]))
    if not chips:
        msg = f"{source}: none of {len(faces)} pictures can be read"
        raise SourceError(msg)
    return np.stack(chips), np.array(labels, np.int64), np.array(usage), np.array(lots)
