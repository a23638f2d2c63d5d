"""Scoring a bundle as shipped: bare interpreters, the manifest, and the data; nothing of the training code.

Every share comes with its n and 95 % Wilson interval. PublicTest half B carries what depends on the temperature or the
threshold fitted on half A.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edge.bundle.manifest import Bundle, Role, load_bundle
from edge.inference.cpu import CpuBackend
from edge.types import ROUTES
from edge.vision.detect.choose import detector_roles, open_detector
from edge_quantize.evaluation import in_scene, metrics, robustness, score, sheets, turned
from edge_quantize.evaluation.chips import MASKS, device_crop, fer2013, frozen, real_held_out
from edge_quantize.evaluation.expression import expression, happy_bias
from edge_quantize.evaluation.mistakes import Mistake, surest
from edge_quantize.masks import landmarks
from edge_quantize.masks.templates import KINDS, UNSEEN_KIND
from edge_quantize.progress import bar

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from edge.types import F32, U8
    from edge.vision.detect import Detector
    from edge_quantize.datasets.fer2013 import Fer2013

MIXTURE_SEED: Final = 20261121
SAMPLE_SEED: Final = 20261121
SAMPLE: Final = 1000
"""Faces of each kind on which PublicTest-C of the masked net and of the gate is measured; the unmasked net's is all."""
TIGHT: Final = 1.3
"""Crops of real photographs below this many box widths are tight, the others loose."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What is known of a bundle after scoring it."""

    report: dict[str, Any]
    """JSON-ready: `bundle`, `created`, `sha256`, `models`, `fer_unmasked`, `fer_masked`, `mixture`, `gate`, `public_c`,
    `in_scene`, `invoke_ms`, `not_measured`."""
    mistakes: list[Mistake]
    """The surest of the unmasked net."""
    sheets: dict[str, U8]
    """Contact sheets by name: `public_c` (grey), `in_scene` (BGR)."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What every model said of every chip: probabilities (N, K)."""

    rows: NDArray[np.int64]
    """PublicTest rows, (P,)."""
    worn_rows: NDArray[np.int64]
    """Rows that the frozen masked set holds, (W,)."""
    bare: dict[str, F32]
    """By role, of the P faces without a mask."""
    worn: dict[str, F32]
    """By role, of the W masked faces."""
    real: F32
    """The gate's, of the held-out photographs."""
    invoke_ms: dict[str, float]
    """Median time of one invocation by role."""


def _invoke_ms(interpreter: Any, chips: U8) -> float:  # noqa: ANN401
    times = []
    for chip in chips:
        began = time.perf_counter()
        score.outputs(interpreter, chip[None])
        times.append(time.perf_counter() - began)
    return round(1000 * float(np.median(times)), 3)


def answer(bundle: Bundle, show: Callable[[int, int], None]) -> Answers:
    """Score every model of a bundle on every set; minutes on one slow core."""
    fer, worn = fer2013(), frozen()
    rows, real = fer.public_rows(), real_held_out()
    chips = {"bare": device_crop(fer.images[rows]), "worn": device_crop(worn.images)}
    total = 3 * sum(len(c) for c in chips.values()) + len(real.images)
    said: dict[str, dict[str, F32]] = {"bare": {}, "worn": {}}
    invoke_ms, done = {}, 0

    def step(part: int, _total: int) -> None:
        show(done + part, total)

    for role in ("gate", "fer_unmasked", "fer_masked"):
        interpreter = score.open_interpreter(bundle.path(role))
        output = bundle.entry(role).output
        invoke_ms[role] = _invoke_ms(score.open_interpreter(bundle.path(role), delegate=True), chips["bare"][:200])
        for name, some in chips.items():
            raw = score.outputs(interpreter, some, step)
            said[name][role] = score.probabilities(raw, output.scale, output.zero_point)
            done += len(some)
    gate = score.open_interpreter(bundle.path("gate"))
    seen = score.probabilities(score.outputs(gate, real.images, step))
    return Answers(rows, worn.params["index"].astype(np.int64), said["bare"], said["worn"], seen, invoke_ms)


def _mixture(fer: Fer2013, said: Answers) -> dict[str, Any]:
    """Half the faces masked, by a fixed seed: through the gate, and by the more confident of both models."""
    where = np.searchsorted(said.rows, said.worn_rows)
    chosen = np.random.default_rng(MIXTURE_SEED).permutation(len(where))[: len(said.rows) // 2]
    parts = {role: said.bare[role].copy() for role in said.bare}
    for role, values in parts.items():
        values[where[chosen]] = said.worn[role][chosen]
    truth = fer.labels[said.rows].astype(np.int64)
    masked = np.zeros(len(said.rows), bool)
    masked[where[chosen]] = True
    route = parts["gate"].argmax(axis=1) == 1
    by_gate = np.where(route, parts["fer_masked"].argmax(axis=1), parts["fer_unmasked"].argmax(axis=1))
    surer = parts["fer_masked"].max(axis=1) > parts["fer_unmasked"].max(axis=1)
    by_top = np.where(surer, parts["fer_masked"].argmax(axis=1), parts["fer_unmasked"].argmax(axis=1))
    ms = said.invoke_ms
    gate_ms = ms["gate"] + (ms["fer_unmasked"] + ms["fer_masked"]) / 2
    return {
        "masked_share": round(float(masked.mean()), 4),
        "gate": metrics.share(by_gate == truth),
        "highest_probability": metrics.share(by_top == truth),
        "single": metrics.share(parts["fer_unmasked"].argmax(axis=1) == truth),
        "routed_right": metrics.share(route == masked),
        "routed_right_highest_probability": metrics.share(surer == masked),
        "mcnemar_p": round(metrics.mcnemar(by_gate == truth, by_top == truth), 4),
        "invoke_ms": {
            "gate": round(gate_ms, 3),
            "highest_probability": round(ms["fer_unmasked"] + ms["fer_masked"], 3),
        },
        "time_ratio": round(gate_ms / (ms["fer_unmasked"] + ms["fer_masked"]), 4),
    }


def _gate(
    said: Answers, real_label: NDArray[np.integer[Any]], scale: NDArray[np.float32], photo: NDArray[np.integer[Any]]
) -> dict[str, Any]:
    truth = np.repeat([0, 1], [len(said.rows), len(said.worn_rows)])
    synthetic = metrics.classifier(np.concatenate([said.bare["gate"], said.worn["gate"]]), truth, ROUTES)
    kind = frozen().params["kind"]
    worn_right = said.worn["gate"].argmax(axis=1) == 1
    real = metrics.classifier(said.real, real_label, ROUTES)
    right = said.real.argmax(axis=1) == real_label
    return {
        "synthetic": synthetic,
        "synthetic_by_kind": {name: metrics.share(worn_right[kind == k]) for k, name in enumerate(KINDS)},
        "real_held_out": {**real, "by_photo": metrics.photos(right, photo),
                          "tight": metrics.share(right[scale < TIGHT]), "loose": metrics.share(right[scale >= TIGHT])},
    }  # fmt: skip


def _camera(bundle: Bundle, said: Answers, fer: Fer2013, detector: Detector, rooms: list[U8]) -> dict[str, Any]:
    """PublicTest-C of every model and PublicTest-in-scene."""
    bare, worn = device_crop(fer.images[said.rows]), device_crop(frozen().images)
    labels = fer.labels.astype(np.int64)
    rng = np.random.default_rng(SAMPLE_SEED)
    some, some_worn = (np.sort(rng.permutation(len(chips))[:SAMPLE]) for chips in (bare, worn))
    sets = {
        "fer_unmasked": (bare, labels[said.rows], said.bare["fer_unmasked"]),
        "fer_masked": (worn[some_worn], labels[said.worn_rows[some_worn]], said.worn["fer_masked"][some_worn]),
        "gate": (
            np.concatenate([bare[some], worn[some_worn]]),
            np.repeat([0, 1], [len(some), len(some_worn)]),
            np.concatenate([said.bare["gate"][some], said.worn["gate"][some_worn]]),
        ),
    }
    out: dict[str, Any] = {}
    for role, (chips, truth, clean) in sets.items():
        with bar(f"PublicTest-C, {role}") as show:
            out[role] = robustness.public_c(bundle, role, chips, truth, clean.argmax(axis=1), show)
    with bar("PublicTest-in-scene") as show:
        scene = robustness.scenes(bundle, fer, said.bare["fer_unmasked"].argmax(axis=1), detector, rooms, show)
    return {"public_c": out, "in_scene": scene}


def _models(bundle: Bundle) -> dict[str, Any]:
    """Sizes, and what int8 cost when the bundle was made, by role."""
    out = {}
    for role in bundle.roles:
        entry = bundle.entry(role)
        out[role] = {"file": entry.file, "bytes": bundle.path(role).stat().st_size, "params": entry.params,
                     "macs": entry.macs, "int8_against_float": entry.metrics.get("int8_against_float")}  # fmt: skip
    return out


def evaluate(folder: Path) -> Evaluation:
    """Score the bundle in `folder`, `models/<name>`.

    Raises:
        BundleError: the bundle is damaged.
        SourceError: data or renderings are missing.

    """
    bundle, fer = load_bundle(folder), fer2013()
    detector = open_detector(bundle, "auto", CpuBackend(bundle, detector_roles(bundle, "auto")))
    # Everything that may be missing is asked for before the minutes of scoring.
    marks, rooms, real, params = (
        landmarks.load(MASKS / "landmarks.npz"), in_scene.backgrounds(), real_held_out(), frozen().params)  # fmt: skip
    worn_sets = turned.load_sets(MASKS)
    with bar("scoring") as show:
        said = answer(bundle, show)

    def ask(role: Role, chips: U8) -> F32:
        with bar(f"{role}, turned heads") as show:
            raw = score.outputs(score.open_interpreter(bundle.path(role)), device_crop(chips), show)
        output = bundle.entry(role).output
        return score.probabilities(raw, output.scale, output.zero_point)

    report: dict[str, Any] = {
        "bundle": bundle.manifest.name,
        "created": bundle.manifest.created,
        "sha256": {role: bundle.entry(role).sha256 for role in bundle.roles},
        "models": _models(bundle),
        "fer_unmasked": expression(
            fer, said.rows, said.bare["fer_unmasked"], bundle.entry("fer_unmasked").uncertain_below, marks
        ),
        "fer_masked": expression(
            fer, said.worn_rows, said.worn["fer_masked"], bundle.entry("fer_masked").uncertain_below, marks
        ),
        "mixture": _mixture(fer, said),
        "gate": _gate(said, real.label, real.scale, real.photo),
        **_camera(bundle, said, fer, detector, rooms),
        "invoke_ms": said.invoke_ms,
        "not_measured": ["age", "sex", "skin tone", "hands, hair or things before the lower face"],
    }
    report["gate"] |= turned.figures(worn_sets, partial(ask, "gate"), said.bare["gate"].argmax(axis=1) == 0)
    for role in ("fer_unmasked", "fer_masked"):
        report[role]["happy_share_read"] = happy_bias(report[role]["confusion_with_uncertain"])
    right = said.worn["fer_masked"].argmax(axis=1) == fer.labels[said.worn_rows]
    report["fer_masked"]["by_kind"] = {
        name + (" (never trained on)" if k == UNSEEN_KIND else ""): metrics.share(right[params["kind"] == k])
        for k, name in enumerate(KINDS)
    }
    report["fer_masked"]["as_they_sit"] = turned.expressions(
        worn_sets, partial(ask, "fer_masked"), fer.labels, (said.worn_rows, right)
    )
    tone = np.searchsorted(np.quantile(params["tone"], (0.25, 0.5, 0.75)), params["tone"])
    report["fer_masked"]["by_mask_tone_quartile"] = {str(q + 1): metrics.share(right[tone == q]) for q in range(4)}
    bare_right = said.bare["fer_unmasked"].argmax(axis=1) == fer.labels[said.rows]
    both = np.searchsorted(said.rows, said.worn_rows)
    report["fer_masked"]["same_faces_unmasked"] = metrics.share(bare_right[both])
    report["fer_masked"]["unmasked_net_on_masked_faces"] = metrics.share(
        said.worn["fer_unmasked"].argmax(axis=1) == fer.labels[said.worn_rows])  # fmt: skip
    worst = surest(fer.images[said.rows], fer.labels[said.rows].astype(np.int64), said.bare["fer_unmasked"])
    pictures = {
        "public_c": sheets.corruptions(fer.images[said.rows[:12]]),
        "in_scene": sheets.scenes(fer.images[robustness.scene_rows(fer)], rooms, detector, bundle.crop(detector.kind)),
    }
    return Evaluation(report, worst, pictures)
