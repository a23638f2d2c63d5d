"""How a bundle stands what kiosks do to faces: PublicTest-C and PublicTest-in-scene, by bare interpreters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from edge_quantize import in_scene, metrics, score
from edge_quantize.corruptions import CORRUPTIONS, corrupt

from edge.detect.haar import Haar
from edge.types import EMOTIONS

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge_quantize.data import Fer2013
    from numpy.typing import NDArray

    from edge.bundle import Bundle
    from edge.types import U8

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
        `corruptions`: by name a share, `loss_points` and, for expressions, `sad_share`; `mean_loss`, `worst_loss`
        (points), `worst`.

    """
    base = float((clean == truth).mean())
    out: dict[str, Any] = {}
    for k, name in enumerate(CORRUPTIONS):
        done = k * len(chips)

        def step(part: int, _total: int, done: int = done) -> None:
            show(done + part, len(CORRUPTIONS) * len(chips))

        said = answers(bundle, role, corrupt(name, chips), step)
        right = said == truth
        out[name] = {**metrics.share(right), "loss_points": round(100 * (base - float(right.mean())), 2)}
        if role != "gate":
            out[name]["sad_share"] = round(float((said == SAD).mean()), 4)
    losses = {name: figure["loss_points"] for name, figure in out.items()}
    worst = max(losses, key=lambda name: losses[name])
    return {
        "corruptions": out,
        "mean_loss": round(float(np.mean(list(losses.values()))), 2),
        "worst_loss": losses[worst],
        "worst": worst,
    }


def scenes(bundle: Bundle, fer: Fer2013, direct: NDArray[np.int64], show: Callable[[int, int], None]) -> dict[str, Any]:
    """PublicTest-in-scene of the unmasked net; `direct` are its answers (P,) to PublicTest itself."""
    rows = fer.public_rows()
    chosen = np.sort(np.random.default_rng(in_scene.SEED).permutation(len(rows))[: in_scene.FACES])
    detector = Haar()
    crop = bundle.crop(detector.kind)
    seen = in_scene.look(fer.images[rows[chosen]], in_scene.backgrounds(), detector, [crop], show)
    there = answers(bundle, "fer_unmasked", seen.chips[0], lambda _done, _total: None)
    return in_scene.figures(seen, fer.labels[rows[chosen]].astype(np.int64), there, direct[chosen])
