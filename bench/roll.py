"""What it is worth to level a face by the roll of the eyes that BlazeFace finds: docs/decisions/0014-blazeface.md.

    .venv/bin/python bench/roll.py --bundle models/fer-2027.09 [--faces N]

Faces of PublicTest half A, bare and masked, are set into scenes, every other one turned the other way. Each one found
is read as the box stands, and levelled where the eyes lean by so many degrees or more: points won and their 95 %
interval, paired. The eyes' error is against the turn and those of the face mesh in the picture itself.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from edge_quantize.evaluation import chips, in_scene, metrics, robustness
from edge_quantize.masks import landmarks
from edge_quantize.masks import synthesis as masks

from edge.bundle.manifest import load_bundle
from edge.inference.cpu import CpuBackend
from edge.vision.detect.blazeface import BlazeFace
from edge.vision.preprocess import chip

ROLLS: Final = (0, 10, 20, 30, 40)
LEVELLED_FROM: Final = (0, 20, 25, 30)
"""Degrees."""


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--faces", type=int, default=900, help="of each kind")
    args = parser.parse_args()
    bundle, fer, worn = load_bundle(args.bundle), chips.fer2013(), chips.frozen()
    answer = partial(CpuBackend(bundle, ("detector",)).outputs, "detector")
    # One row of squares finds faces of this size (docs/detectors.md).
    detector = BlazeFace(answer, bundle.entry("detector").anchors, tiles=1, level_from=0)
    crop, rooms, marks = bundle.crop("blazeface"), in_scene.backgrounds(), landmarks.load(chips.MASKS / "landmarks.npz")
    heads = ["turned", "found", "as it stands", *(f"from {least}°" for least in LEVELLED_FROM), "eyes' error, ° (sd)"]
    print("| " + " | ".join(heads) + " |\n|---|" + "--:|" * (len(heads) - 1))
    half_a = np.random.default_rng(in_scene.SEED).permutation(fer.public_halves()[0])
    masked = {int(row): image for row, image in zip(worn.params["index"], worn.images, strict=True)}
    worn_a = [row for row in half_a if row in masked]
    for role, drawn, pictures in (("fer_unmasked", half_a, fer.images), ("fer_masked", worn_a, masked)):
        rows = np.sort(drawn[: args.faces])
        images = np.stack([pictures[row] for row in rows])
        across, down = np.array([np.subtract(*masks.eye_centres(points)[::-1]) for points in marks.points[rows]]).T
        own = np.where(marks.found[rows], np.degrees(np.arctan2(down, across)), np.nan)
        for roll in ROLLS:
            turns = np.resize((roll, -roll), len(images))
            found, lean, cut = [], [], []
            for k, (frame, *where) in enumerate(in_scene.place(images, rooms, turns)):
                if box := in_scene.match(detector.detect(frame, thorough=True), *where):
                    found.append(k)
                    lean.append(box.angle)
                    cut.append([chip(frame, one, crop) for one in (replace(box, angle=0.0), box)])
            if not found:
                parser.error(f"none of {len(images)} faces was found: give more with --faces")
            truth = fer.labels[rows[found]]
            stands, level = (
                robustness.answers(bundle, role, one, lambda *_: None) == truth for one in np.array(cut).swapaxes(0, 1)
            )
            cells = [f"{role[4:]}, {roll}°", str(len(found)), f"{100 * stands.mean():.1f} %"]
            for least in LEVELLED_FROM:
                won = metrics.paired_loss(np.where(np.abs(lean) >= least, level, stands), stands)
                cells.append(f"{won['loss_points']:+.1f} ({won['loss_low']:+.1f} to {won['loss_high']:+.1f})")
            error = np.copysign(1, turns)[found] * (lean - turns[found] - own[found])
            cells.append(f"{np.nanmean(error):+.1f} ({np.nanstd(error):.1f})")
            print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
