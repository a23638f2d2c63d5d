"""How a bundle stands what kiosks do to faces: PublicTest-C and PublicTest-in-scene, by bare interpreters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edge.types import EMOTIONS
from edge_quantize.evaluation import in_scene, metrics, score
from edge_quantize.evaluation.corruptions import CORRUPTIONS, corrupt

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from edge.bundle.manifest import Bundle
    from edge.types import U8
    from edge.vision.detect import Detector
    from edge_quantize.datasets.fer2013 import Fer2013

SAD = EMOTIONS.index("sad")


def answers(bundle: Bundle, role: str, chips: U8, show: Callable[[int, int], None]) -> NDArray[np.int64]:
    """Class numbers (N,) that a role's shipped model answers to u8 chips (N, 48, 48)."""
    raw = score.outputs(score.open_interpreter(bundle.path(role)), chips, show)
    said: NDArray[np.int64] = raw.argmax(axis=1).astype(np.int64)
    return said


def public_c(
    bundle: Bundle,
    role: str,
    chips: U8,
    truth: NDArray[np.int64],
    clean: NDArray[np.int64],
    show: Callable[[int, int], None],
) -> dict[str, Any]:
    """Accuracy of one model through every corruption, and what is lost against the clean chips.

    Args:
        bundle: holds the model.
        role: its role.
        chips: u8 (N, 48, 48).
        truth: (N,) class numbers.
        clean: (N,) its answers to the clean chips.
        show: told (chips done, chips in all).

    Returns:
        `clean` and `corruptions`, by name: a share, its `metrics.paired_loss` against the clean chips and, for
        expressions, `sad_share`; `mean_loss`, `worst_loss` (points), `worst`.

    """
    before = clean == truth

    def figure(said: NDArray[np.int64]) -> dict[str, Any]:
        right = said == truth
        sad = {} if role == "gate" else {"sad_share": round(float((said == SAD).mean()), 4)}
        return {**metrics.share(right), **metrics.paired_loss(before, right), **sad}

    out: dict[str, Any] = {}
    for k, name in enumerate(CORRUPTIONS):
        done = k * len(chips)

        def step(part: int, _total: int, done: int = done) -> None:
            show(done + part, len(CORRUPTIONS) * len(chips))

        out[name] = figure(answers(bundle, role, corrupt(name, chips), step))
    losses = {name: one["loss_points"] for name, one in out.items()}
    worst = max(losses, key=lambda name: losses[name])
    return {
        "clean": figure(clean),
        "corruptions": out,
        "mean_loss": round(float(np.mean(list(losses.values()))), 2),
        "worst_loss": losses[worst],
        "worst": worst,
    }


def scene_rows(fer: Fer2013) -> NDArray[np.int64]:
    """Rows, ascending, of the PublicTest faces that are set into scenes."""
    rows = fer.public_rows()
    return np.sort(np.random.default_rng(in_scene.SEED).permutation(rows)[: in_scene.FACES])


def scenes(
    bundle: Bundle,
    fer: Fer2013,
    direct: NDArray[np.int64],
    detector: Detector,
    rooms: list[U8],
    show: Callable[[int, int], None],
) -> dict[str, Any]:
    """PublicTest-in-scene of the unmasked net; `direct` are its answers (P,) to PublicTest itself."""
    rows = scene_rows(fer)
    crop = bundle.crop(detector.kind)
    seen = in_scene.look(fer.images[rows], rooms, detector, [crop], show)
    there = answers(bundle, "fer_unmasked", seen.chips[0], lambda _done, _total: None)
    truth = fer.labels[rows].astype(np.int64)
    figures = in_scene.figures(seen, truth, there, direct[np.isin(fer.public_rows(), rows)])
    return {"detector": detector.kind, **figures}
