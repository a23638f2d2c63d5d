"""What a recipe trains on and is watched by: chips with soft targets, gathered from the datasets."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from edge.errors import SourceError
from edge_quantize.datasets.fer2013 import (
    SEEN,
    Fer2013,
    held_out_photos,
    load_fer2013,
    load_real_crops,
    load_rendered,
    soft_targets,
    validation_photos,
)
from edge_quantize.datasets.not_bare import NOT_BARE
from edge_quantize.training.labelled import Labelled, Samples
from edge_quantize.training.nets import NETS
from edge_quantize.training.own_samples import own_samples
from edge_quantize.training.recipe import RENDERINGS

if TYPE_CHECKING:
    from pathlib import Path

    from edge_quantize.training.labelled import I64, U8
    from edge_quantize.training.recipe import Recipe

WATCHED = 850
"""Faces of a held-out fold that training is watched by; the whole fold is scored at the end."""


def load_samples(recipe: Recipe, masks: Path) -> Samples:
    """Samples of a recipe. `masks` is the folder of rendered masks and real crops.

    Raises SourceError when data are missing or damaged.
    """
    if recipe.data is not None:
        samples = own_samples(recipe)
    else:
        build = {"fer_unmasked": _unmasked, "fer_masked": _masked, "gate": _gate}[recipe.role]
        samples = build(recipe, load_fer2013(), masks)
    if recipe.folds:
        held = samples.validation
        some = np.random.default_rng(recipe.seed).permutation(len(held.labels))[:WATCHED]
        watched = Labelled(held.chips[some], held.labels[some])
        samples = replace(samples, validation=watched, tests={"held_out": held} | samples.tests)
    classes = NETS[recipe.net].classes
    smooth = (1 - recipe.smoothing) * samples.targets + recipe.smoothing / classes
    return replace(samples, targets=smooth.astype(np.float32))


def _split(recipe: Recipe, data: Fer2013) -> tuple[I64, I64]:
    return data.fold(recipe.folds, recipe.fold) if recipe.folds else data.train_val()


def _seen(recipe: Recipe, masks: Path, train: I64) -> tuple[U8, I64]:
    """Chips and rows of train faces as the device cuts them from scenes; none where the recipe asks for none."""
    if not recipe.seen:
        return np.empty((0, 48, 48), np.uint8), np.empty(0, np.int64)
    found = load_rendered(masks / SEEN[recipe.role])
    inside = np.isin(found.index, train)
    return found.images[inside], found.index[inside].astype(np.int64)


def _unmasked(recipe: Recipe, data: Fer2013, masks: Path) -> Samples:
    train, held = _split(recipe, data)
    targets = soft_targets(data.labels, data.votes, recipe.votes_weight)
    public = data.public_rows()
    seen, seen_rows = _seen(recipe, masks, train)
    rows = np.concatenate([train, seen_rows])
    return Samples(
        np.concatenate([data.images[train], seen]),
        targets[rows],
        rows,
        Labelled(data.images[held], data.labels[held].astype(np.int64)),
        {"public": Labelled(data.images[public], data.labels[public].astype(np.int64))},
    )


def _masked_train(masks: Path, train: I64, held: I64) -> tuple[U8, I64, U8, I64]:
    """Renderings of train rows and of held-out rows: chips, rows, chips, rows."""
    files = [masks / f"fer2013-train-{k}.npz" for k in range(RENDERINGS)]
    parts = [load_rendered(path) for path in files if path.exists() or path is files[0]]
    chips = np.concatenate([part.images for part in parts])
    rows = np.concatenate([part.index for part in parts]).astype(np.int64)
    inside = np.isin(rows, train)
    first = np.arange(len(rows)) < len(parts[0].index)
    kept = np.isin(rows, held) & first
    return chips[inside], rows[inside], chips[kept], rows[kept]


def _masked(recipe: Recipe, data: Fer2013, masks: Path) -> Samples:
    train, held = _split(recipe, data)
    chips, rows, held_chips, held_rows = _masked_train(masks, train, held)
    if recipe.worn_share:
        worn = _worn_train(masks, train)
        # Up to a half, worn ones come besides; as many as there are, so that the share is met.
        count = min(round(len(rows) / max(1 - recipe.worn_share, 0.5)), int(len(worn[1]) / recipe.worn_share))
        chips, rows = _with_worn(recipe, chips, rows, count, worn)
    seen, seen_rows = _seen(recipe, masks, train)
    chips, rows = np.concatenate([chips, seen]), np.concatenate([rows, seen_rows])
    targets = soft_targets(data.labels, data.votes, recipe.votes_weight)
    public = load_rendered(masks / "fer2013-public.npz")
    return Samples(
        chips,
        targets[rows],
        rows,
        Labelled(held_chips, data.labels[held_rows].astype(np.int64)),
        {"public_masked": Labelled(public.images, data.labels[public.index].astype(np.int64))},
    )


def _worn_train(masks: Path, train: I64) -> tuple[U8, I64]:
    """Masks on turned heads of train rows: chips and rows."""
    files = [masks / f"worn-train-{k}.npz" for k in range(RENDERINGS)]
    parts = [load_rendered(path) for path in files if path.exists() or path is files[0]]
    chips, rows = np.concatenate([p.images for p in parts]), np.concatenate([p.index for p in parts]).astype(np.int64)
    inside = np.isin(rows, train)
    return chips[inside], rows[inside]


def _with_worn(recipe: Recipe, flat: U8, rows: I64, count: int, worn: tuple[U8, I64] | None) -> tuple[U8, I64]:
    """About `count` masked faces by lot, `worn_share` of them with masks as they sit: chips and rows."""
    rng = np.random.default_rng(recipe.seed)
    worn_count = round(recipe.worn_share * count)
    once = rng.permutation(len(rows))[: count - worn_count]
    if worn is None:
        return flat[once], rows[once]
    some = rng.permutation(len(worn[1]))[:worn_count]
    return np.concatenate([flat[once], worn[0][some]]), np.concatenate([rows[once], worn[1][some]])


def _gate(recipe: Recipe, data: Fer2013, masks: Path) -> Samples:
    train, held = _split(recipe, data)
    masked, rows, held_masked, held_rows = _masked_train(masks, train, held)
    real = load_real_crops(masks / "real.npz")
    out = held_out_photos(real.photo)
    # As many masked faces as bare ones, or the classes would stand two to one.
    worn = _worn_train(masks, train) if recipe.worn_share else None
    masked, rows = _with_worn(recipe, masked, rows, recipe.renderings * len(train), worn)
    bare, watched = train, Labelled(
        np.concatenate([data.images[held_rows], held_masked]), np.repeat([0, 1], len(held_rows)).astype(np.int64)
    )  # fmt: skip
    used = ~out
    if worn is not None:
        bare = train[~np.isin(train, NOT_BARE)]
        seen = validation_photos(real.photo) & ~out
        used &= ~seen
        turned = load_rendered(masks / "worn-validation.npz")
        turned_in = np.isin(turned.index, held)
        if 2 * turned_in.sum() < len(held):
            msg = (
                f"{masks / 'worn-validation.npz'} holds {turned_in.sum()} of {len(held)} validation faces: drawn "
                "for another split; remove it and run edge-quantize masks again"
            )
            raise SourceError(msg)
        watched = Labelled(
            np.concatenate([watched.chips, turned.images[turned_in], real.images[seen]]),
            np.concatenate([watched.labels, np.ones(int(turned_in.sum()), np.int64), real.label[seen]]),
        )
    bare = np.repeat(bare, recipe.renderings)
    again = np.repeat(np.flatnonzero(used), recipe.real_repeats)
    labels = np.concatenate([np.zeros(len(bare)), np.ones(len(rows)), real.label[again]]).astype(np.int64)
    public = load_rendered(masks / "fer2013-public.npz")
    truth = np.repeat([0, 1], len(public.index)).astype(np.int64)
    return Samples(
        np.concatenate([data.images[bare], masked, real.images[again]]),
        np.eye(2, dtype=np.float32)[labels],
        np.concatenate([bare, rows, np.full(len(again), -1)]),
        watched,
        {
            "public_pairs": Labelled(np.concatenate([data.images[public.index], public.images]), truth),
            "real_held_out": Labelled(real.images[out], real.label[out].astype(np.int64)),
        },
    )
