"""The datasets as arrays: FER2013 with FER+ votes, rendered masks, real photos. Leak-free splits."""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.errors import SourceError
from edge.types import EMOTIONS
from edge.vision.preprocess import CHIP

U8 = NDArray[np.uint8]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
F32 = NDArray[np.float32]
Mask = NDArray[np.bool_]

TILE_FILES: Final = 8
TILES_A_SIDE: Final = 64
FERPLUS_TO_EMOTION: Final = (4, 3, 6, 5, 0, 1, 2)
"""Column k of the FER+ votes is this one of EMOTIONS; contempt, unknown and not-a-face have none."""
HALVES_SEED: Final = 20261121
VALIDATION_SEED: Final = 7
SEEN: Final = {"fer_unmasked": "seen-bare.npz", "fer_masked": "seen-masked.npz"}
"""Files of training faces as the device cuts them from scenes, beside the masked renderings."""


@dataclass(frozen=True, slots=True)
class Fer2013:
    """FER2013 in file order. N = 32,296 rows: train, then the official PublicTest.

    `images` uint8 (N, 48, 48) grey; `labels` uint8 (N,) into EMOTIONS; `public` bool (N,): row belongs to
    PublicTest; `votes` int16 (N, 10) of FER+, -1 where unknown; `dup_group` int32 (N,): rows that show the
    same picture share a number; `usable` bool (N,): a train row that may be trained on; `drawn_from` bool (N,):
    a row among which validation and folds are drawn.
    """

    images: U8
    labels: U8
    public: Mask
    votes: NDArray[np.int16]
    dup_group: I32
    usable: Mask
    drawn_from: Mask
    """Wider than `usable` and never to be narrowed: a lot drawn among fewer groups falls on other faces, and
    nets that go on from earlier weights would be validated on faces they were trained on."""

    def public_rows(self) -> I64:
        """Rows of PublicTest, int64 (3589,)."""
        return np.flatnonzero(self.public)

    def train_rows(self) -> I64:
        """Rows that may be trained on: no PublicTest, no duplicate of a test image, none blank."""
        return np.flatnonzero(self.usable)

    def train_val(self, held_out: int = 800) -> tuple[I64, I64]:
        """Rows to train on and about `held_out` rows to watch training by, both int64.

        Disjoint also by duplicate group, both within `train_rows`. Fixed seed.
        """
        pool = np.flatnonzero(self.drawn_from)
        taken = take_groups(self.dup_group[pool], held_out, VALIDATION_SEED)
        return self._usable(pool[~taken]), self._usable(pool[taken])

    def fold(self, folds: int, fold: int) -> tuple[I64, I64]:
        """Rows to train on and rows of the held-out fold, both int64; as `train_val`, and the same for every role."""
        pool = np.flatnonzero(self.drawn_from)
        taken = fold_numbers(self.dup_group[pool], folds, VALIDATION_SEED) == fold
        return self._usable(pool[~taken]), self._usable(pool[taken])

    def _usable(self, rows: I64) -> I64:
        return np.asarray(rows[self.usable[rows]], np.int64)

    def public_halves(self) -> tuple[I64, I64]:
        """Half A (temperature, thresholds) and half B (what is reported of them) of PublicTest.

        Two sorted int64 arrays of rows, disjoint, together all of PublicTest. Rows of one duplicate group
        stay together, so the halves are equal only to within a few rows. Fixed seed.
        """
        rows = self.public_rows()
        taken = take_groups(self.dup_group[rows], len(rows) // 2, HALVES_SEED)
        return rows[taken], rows[~taken]


@dataclass(frozen=True, slots=True)
class Rendered:
    """Masked renderings: `images` uint8 (M, 48, 48), `index` int32 (M,) FER2013 row, `kind` uint8 (M,)."""

    images: U8
    index: I32
    kind: U8

    def save(self, path: Path) -> None:
        """Write the arrays as a compressed .npz, as `load_rendered` reads them."""
        save_arrays(path, images=self.images, index=self.index, kind=self.kind)


@dataclass(frozen=True, slots=True)
class RealCrops:
    """Face crops of real photos.

    `images` uint8 (M, 48, 48), `label` uint8 (M,) 1 = masked, `photo` int32 (M,) the photo a crop comes from,
    `scale` float32 (M,) side of the crop over side of the face box: under 1.3 tight, above loose. Crops of one photo
    stay on one side of a split.
    """

    images: U8
    label: U8
    photo: I32
    scale: F32

    def save(self, path: Path) -> None:
        """Write the arrays as a compressed .npz, as `load_real_crops` reads them."""
        save_arrays(path, images=self.images, label=self.label, photo=self.photo, scale=self.scale)


def data_root() -> Path:
    """Folder of the datasets: $EDGE_DATA, else `../shared/data` beside the repository."""
    named = os.environ.get("EDGE_DATA")
    return Path(named) if named else Path(__file__).resolve().parents[5] / "shared" / "data"


def save_arrays(path: Path, **arrays: NDArray[np.generic]) -> None:
    """Write a compressed .npz beside its place and move it there, so that none is ever half written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".part.npz")
    np.savez_compressed(draft, **arrays)
    draft.replace(path)


def load_arrays(path: Path, names: tuple[str, ...], made_by: str = "") -> dict[str, NDArray[np.generic]]:
    """Read the named arrays of an npz file. Raises SourceError if it is absent, damaged or lacks one.

    `made_by` is the command that writes the file, to be told where it is absent.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in names}
    except FileNotFoundError:
        msg = f"{path} is not there" + (f": run {made_by}" if made_by else "")
        raise SourceError(msg) from None
    except KeyError as error:
        msg = f"{path} lacks the array {error}"
        raise SourceError(msg) from None
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        msg = f"{path} cannot be read as npz: {error}"
        raise SourceError(msg) from None


def load_fer2013(folder: Path | None = None) -> Fer2013:
    """Read FER2013 from `<folder>/fer2013` (default: `data_root()`).

    Raises SourceError when a file is missing, damaged or does not fit the others.
    """
    base = (folder or data_root()) / "fer2013"
    if not base.is_dir():
        msg = f"no FER2013 in {base}: set EDGE_DATA to the folder that holds fer2013/"
        raise SourceError(msg)
    meta = load_arrays(
        base / "meta.npz", ("labels", "split", "duplicate_of_test", "blank", "ferplus_votes", "dup_group")
    )
    rows = len(meta["labels"])
    faces = np.concatenate([_tiles(base / f"tiles-{k}.webp") for k in range(TILE_FILES)])
    if len(faces) < rows:
        msg = f"{base}: {len(faces)} faces for {rows} labels"
        raise SourceError(msg)
    public = meta["split"] == "public"
    group = meta["dup_group"].astype(np.int32)
    # A group with a test image in it: marked in the data only where it stands pixel for pixel in a test split.
    shown = np.isin(group, group[public])
    drawn_from = ~public & ~meta["duplicate_of_test"].astype(bool) & ~meta["blank"].astype(bool)
    return Fer2013(
        images=np.ascontiguousarray(faces[:rows]),
        labels=meta["labels"].astype(np.uint8),
        public=np.asarray(public, bool),
        votes=meta["ferplus_votes"].astype(np.int16),
        dup_group=group,
        usable=np.asarray(drawn_from & ~shown, bool),
        drawn_from=np.asarray(drawn_from, bool),
    )


def _tiles(path: Path) -> U8:
    """Faces of one mosaic, uint8 (4096 or fewer, 48, 48), row by row."""
    mosaic = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    side = TILES_A_SIDE * CHIP
    if mosaic is None or mosaic.shape[1] != side or mosaic.shape[0] % CHIP:
        msg = f"{path} is missing or not a mosaic {side} pixels wide"
        raise SourceError(msg)
    grid = mosaic.reshape(-1, CHIP, TILES_A_SIDE, CHIP).swapaxes(1, 2)
    return grid.reshape(-1, CHIP, CHIP).astype(np.uint8, copy=False)


def load_rendered(path: Path) -> Rendered:
    """Read a file of rendered masks, or of faces from scenes. Raises SourceError when absent or damaged."""
    command = "scenes" if path.name in SEEN.values() else "masks"
    found = load_arrays(path, ("images", "index", "kind"), f"edge-quantize {command}")
    return Rendered(
        found["images"].astype(np.uint8, copy=False),
        found["index"].astype(np.int32),
        found["kind"].astype(np.uint8),
    )


def load_real_crops(path: Path) -> RealCrops:
    """Read the crops of real photos. Raises SourceError when absent or damaged."""
    found = load_arrays(path, ("images", "label", "photo", "scale"), "edge-quantize masks")
    return RealCrops(
        found["images"].astype(np.uint8, copy=False),
        found["label"].astype(np.uint8),
        found["photo"].astype(np.int32),
        found["scale"].astype(np.float32),
    )


def held_out_photos(photo: NDArray[np.integer[Any]]) -> Mask:
    """Bool (M,): crop belongs to a photo that the gate never sees in training, one photo in five.

    A hash of the photo's number alone decides, so that more photos move none to the other side.
    """
    held: Mask = (photo.astype(np.int64) * 2654435761 >> 8) % 5 == 0
    return held


def validation_photos(photo: NDArray[np.integer[Any]]) -> Mask:
    """Bool (M,): crop belongs to a photo that the gate is watched by, one in twenty; none of them is held out."""
    watched: Mask = (photo.astype(np.int64) * 2654435761 >> 8) % 20 == 1
    return watched


def take_groups(groups: I32, wanted: int, seed: int) -> Mask:
    """Bool per row: whole groups, drawn at random until at least `wanted` rows are taken."""
    numbers, sizes = np.unique(groups, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(numbers))
    needed = int(np.searchsorted(np.cumsum(sizes[order]), wanted)) + 1
    return np.isin(groups, numbers[order[:needed]])


def fold_numbers(groups: I32, folds: int, seed: int) -> I64:
    """Fold of each row, int64 (N,) from 0 to folds - 1: whole groups in random order, cut into about equal parts."""
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(sizes))
    fold = np.empty(len(sizes), np.int64)
    fold[order] = (np.cumsum(sizes[order]) - sizes[order]) * folds // len(groups)
    return fold[group]


def soft_targets(labels: U8, votes: NDArray[np.int16], votes_weight: float) -> F32:
    """Training targets float32 (N, 7), rows sum to 1.

    (1 - votes_weight) × the FER2013 label + votes_weight × the FER+ votes over the seven emotions (Barsoum
    et al. 2016), renormalised; the label alone where there are no votes for any of the seven.
    """
    hard = np.eye(len(EMOTIONS), dtype=np.float32)[labels]
    counts = np.zeros_like(hard)
    counts[:, FERPLUS_TO_EMOTION] = np.maximum(votes[:, : len(EMOTIONS)], 0)
    total = counts.sum(axis=1, keepdims=True)
    known = total > 0
    crowd = counts / np.where(known, total, 1)
    return np.where(known, (1 - votes_weight) * hard + votes_weight * crowd, hard).astype(np.float32)
