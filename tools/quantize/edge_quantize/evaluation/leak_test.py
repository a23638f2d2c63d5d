"""Does the mask tell the expression? A classifier that sees the mask alone must do no better than chance.

A jaw that drops under a mask stretches it, and a net trained on such masks would learn "long mask: surprise" instead of
looking at the eyes. So a small convolutional net is trained on the silhouette and the fabric, everything else blanked,
and scored on faces that it never saw, class-balanced. A net that answers one class four times in ten has a recall of .4
there by chance: its answers are evened out first, so that every class is answered equally often and each recall
compares with one in seven.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np

from edge.types import EMOTIONS
from edge_quantize.datasets.fer2013 import take_groups
from edge_quantize.evaluation.chips import MASKS, fer2013
from edge_quantize.masks import landmarks
from edge_quantize.masks import sets as mask_sets
from edge_quantize.masks import synthesis as masks
from edge_quantize.progress import bar

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from edge.types import U8
    from edge_quantize.masks.landmarks import Landmarks

CHANCE: Final = 1 / len(EMOTIONS)
MOST_BALANCED: Final = CHANCE + 0.03
"""Highest mean recall over the classes that passes."""
MOST_OF_ONE: Final = 0.25
"""Highest recall of one class that passes."""
FACES: Final = 12_000
HELD_OUT: Final = 0.25
EPOCHS: Final = 10
SEED: Final = 7001
"""Of the masks drawn; no training rendering uses it."""


@dataclass(frozen=True, slots=True)
class MasksAlone:
    """`pixels` u8 (N, 48, 48, 2): how far the mask covers, and its fabric where it covers; `rows` of the faces."""

    pixels: U8
    rows: NDArray[np.int64]


def mask_alone(face: U8, params: NDArray[np.void]) -> U8:
    """Silhouette and fabric of one masked face, u8 (48, 48, 2); skin shows nowhere."""
    cover = masks.coverage(params)
    fabric = np.where(cover > 0.5, masks.render(face, params), 0)
    both: U8 = np.stack([np.round(255 * cover), fabric], axis=-1).astype(np.uint8)
    return both


def _work(job: tuple[int, U8, NDArray[np.float32]], lots: masks.Lots) -> U8 | None:
    cv2.setNumThreads(1)
    row, face, points = job
    drawn = mask_sets.draw_accepted(row, face, points, SEED, lots=lots)
    return None if isinstance(drawn, str) else mask_alone(face, drawn)


def render_alone(
    images: U8, rows: NDArray[np.int64], marks: Landmarks, lots: masks.Lots, show: Callable[[int, int], None]
) -> MasksAlone:
    """Draw a mask for each of the rows and keep nothing but the mask; rows whose mask is refused are left out."""
    seen = rows[marks.found[rows]]
    made: list[U8] = []
    kept: list[int] = []
    jobs = ((int(row), images[row], marks.points[row]) for row in seen)
    with get_context("spawn").Pool(2) as pool:
        for k, one in enumerate(pool.imap(partial(_work, lots=lots), jobs, chunksize=64)):
            if one is not None:
                made.append(one)
                kept.append(int(seen[k]))
            if k % 64 == 0:
                show(k, len(seen))
    return MasksAlone(np.stack(made), np.array(kept, np.int64))


def _net(seed: int) -> Any:  # noqa: ANN401 - Keras has no types
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    keras.utils.set_random_seed(seed)
    layers = keras.layers
    model = keras.Sequential([
        keras.Input((48, 48, 2)), layers.Rescaling(1 / 127.5, -1),
        *(part for width in (16, 32, 48) for part in
          (layers.Conv2D(width, 3, strides=2, padding="same", use_bias=False), layers.BatchNormalization(),
           layers.ReLU())),
        layers.Flatten(), layers.Dropout(0.4), layers.Dense(64, "relu"), layers.Dense(len(EMOTIONS), "softmax"),
    ])  # fmt: skip
    model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy")
    return model


def evened(probabilities: NDArray[np.float32]) -> NDArray[np.int64]:
    """Answers (N,) to probabilities (N, K), each class offset in its logarithm until all are answered equally often."""
    scores = np.log(probabilities + 1e-9)
    for rate in np.geomspace(1.0, 1e-3, 3000):
        said = np.bincount(scores.argmax(axis=1), minlength=scores.shape[1])
        scores -= rate * (said / len(scores) - 1 / scores.shape[1])
    answers: NDArray[np.int64] = scores.argmax(axis=1)
    return answers


def recalls(alone: MasksAlone, labels: NDArray[np.int64], groups: NDArray[np.int32], seed: int) -> list[float]:
    """Recall of each class on held-out faces, by a net trained on class-balanced draws of the others, answers evened.

    Args:
        alone: the masks.
        labels: (N,) class numbers of `alone.rows`.
        groups: (N,) numbers of pictures; one picture stays on one side.
        seed: of the split, the draws and the net.

    """
    held = take_groups(groups, round(HELD_OUT * len(groups)), seed)
    rng = np.random.default_rng(seed)
    pools = [np.flatnonzero(~held & (labels == k)) for k in range(len(EMOTIONS))]
    model = _net(seed)
    for _ in range(EPOCHS):
        drawn = np.concatenate([rng.choice(pool, (~held).sum() // len(EMOTIONS)) for pool in pools])
        chosen = alone.pixels[drawn]
        mirrored = rng.random(len(drawn)) < 0.5
        chosen[mirrored] = chosen[mirrored, :, ::-1]
        model.fit(chosen, labels[drawn], batch_size=128, shuffle=True, verbose=0)
    said = evened(np.asarray(model.predict(alone.pixels[held], batch_size=512, verbose=0)))
    return [float((said[labels[held] == k] == k).mean()) for k in range(len(EMOTIONS))]


def leak(lots: masks.Lots, faces: int = FACES, seeds: tuple[int, ...] = (1, 2, 3)) -> dict[str, Any]:
    """Measure how much the masks drawn from `lots` tell.

    Returns:
        `balanced` (by seed), `balanced_mean`, `by_class` (mean over seeds), `n`, `bounds`, `passed`.

    Raises:
        SourceError: data or landmarks are missing.

    """
    fer, marks = fer2013(), landmarks.load(MASKS / "landmarks.npz")
    rows = np.sort(np.random.default_rng(SEED).permutation(fer.train_rows())[:faces])
    with bar("masks alone") as show:
        alone = render_alone(fer.images, rows, marks, lots, show)
    labels = fer.labels[alone.rows].astype(np.int64)
    found = []
    with bar("classifiers") as show:
        for k, seed in enumerate(seeds):
            found.append(recalls(alone, labels, fer.dup_group[alone.rows], seed))
            show(k + 1, len(seeds))
    table = np.array(found)
    by_class, balanced = table.mean(axis=0), table.mean(axis=1)
    return {
        "balanced": [round(float(b), 4) for b in balanced],
        "balanced_mean": round(float(balanced.mean()), 4),
        "by_class": {name: round(float(r), 4) for name, r in zip(EMOTIONS, by_class, strict=True)},
        "n": len(alone.rows),
        "bounds": {"balanced": round(MOST_BALANCED, 4), "one_class": MOST_OF_ONE},
        "passed": bool(balanced.mean() <= MOST_BALANCED and by_class.max() <= MOST_OF_ONE),
    }
